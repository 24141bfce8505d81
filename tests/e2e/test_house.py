"""The rules of the house: which package may import which, and what may be tracked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.repository import ROOT, tracked_files


def texts():
    """Path and content of every tracked text file, locks aside."""
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content and path.suffix != ".lock" and ".dvc/sample" not in str(path):
            yield path, content.decode()


def sources(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_imports_point_one_way():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout)


def test_the_folder_of_the_server_does_not_shadow_the_library():
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    assert sources("mlflow") == []


def test_no_tracked_file_names_a_registry_host_or_a_path_of_one_machine():
    # put together here, so that this file does not name them itself
    hosts = [r"py[p]i\.org", r"pytho[n]hosted", r"registry\.n[p]mjs", r"deb\.debia[n]\.org"]
    folders = "|".join(["wor[k]", "roo[t]", "far[m]"])
    forbidden = re.compile("|".join([*hosts, rf"(?:^|[^A-Za-z0-9_.])/(?:{folders})/"]), re.MULTILINE)
    found = [f"{path.relative_to(ROOT)}: {match[0]}" for path, text in texts() if (match := forbidden.search(text))]
    assert found == []


def test_locks_have_hashes_and_no_addresses():
    for name in ("requirements.lock", "requirements-gpu.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^[A-Za-z0-9_.\[\]-]+==[^\n]*\\$(?=\n    --hash=sha256:)", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)) > 100


def test_bad_input_is_never_an_assert():
    asserting = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("models", "components", "pipelines")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert asserting == []


def test_nothing_large_is_tracked():
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size >> 20} MiB"
        for path in tracked_files()
        if path.stat().st_size > 1 << 20 and ".dvc/sample" not in str(path)
    ]
    assert large == []
