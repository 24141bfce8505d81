"""What code and data a step works with, as text for the cache: unchanged text, unchanged answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from components.shared.digests import file_digest, value_digest
from components.shared.params.schema import DataParams, Params

ROOT = Path(__file__).resolve().parents[2]
CODE = ("components", "models")


def code_version(step: str, params: Params, root: Path = ROOT) -> str:
    """Digest of the code that shapes a step's output: what `dvc.yaml` lists, so that both caches agree.

    Without that file, as in an installed package, all of the steps' code.

    Args:
        step: the step's name.
        params: of the whole run; some modules belong to one choice only.
        root: the folder with `dvc.yaml`, `components/` and `models/`.
    """
    listed: Iterable[str] = CODE
    if (root / "dvc.yaml").exists():
        dependencies = yaml.safe_load((root / "dvc.yaml").read_text())["stages"][step].get("deps", [])
        filled = [dependency.replace("${method.name}", params.method.name) for dependency in dependencies]
        listed = [dependency for dependency in filled if dependency.split("/")[0] in CODE]
    files = {file for name in listed for file in _modules(root / name)}
    return value_digest({str(file.relative_to(root)): file_digest(file) for file in sorted(files)})


def data_version(data: DataParams) -> str:
    """The state of the source that `ingest` reads.

    Of a file, a digest of its content; of a folder, of the names, sizes and times of its files, which is quick for
    a million of them. Published datasets have checksums of their own. A source that is not visible from here has no
    state: `ingest` will say what is wrong with it.
    """
    path = Path(data.path)
    if data.source not in ("folder", "parquet"):
        return "published"
    if path.is_file():
        return file_digest(path)
    if path.is_dir():
        return value_digest([_state(file, path) for file in sorted(path.rglob("*")) if file.is_file()])
    return "not visible"


def _modules(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _state(file: Path, root: Path) -> list[str | int]:
    found = file.stat()
    return [str(file.relative_to(root)), found.st_size, found.st_mtime_ns]
