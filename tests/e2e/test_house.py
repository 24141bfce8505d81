"""The rules of the house: which package may import which, where tests stand, and what may be tracked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
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
    names = ("requirements.lock", "requirements-cpu.lock", "requirements-gpu.lock")
    for name in (*names, "mlflow/requirements.lock", "mlflow/sbom.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^[A-Za-z0-9_.\[\]-]+==[^\n]*\\$(?=\n    --hash=sha256:)", text, re.MULTILINE)
        assert len(pinned) == len(re.findall(r"^[A-Za-z0-9]", text, re.MULTILINE)) > 30


# declared for what imports nothing here
NEEDED = {
    "importlib-resources": "tensorflow-datasets needs it and does not declare it",
    "setuptools": "builds the project's own package",
}


def distribution(requirement):
    """Name of a requirement such as `tensorflow[and-cuda]==2.21.0`, as indexes compare it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_what_is_imported_is_declared_and_what_is_declared_is_needed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {distribution(line) for line in project["dependencies"]}
    # backends of Keras, formats of exports, a hub, signatures, W&B: what a module imports only if it is asked for
    extras = project["optional-dependencies"]
    optional = {
        distribution(line) for name in ("cpu", "gpu", "export", "hub", "signing", "wandb") for line in extras[name]
    }
    providers = packages_distributions()
    used, undeclared = set(), set()
    for path in sources("models", "components", "pipelines"):
        for name in imports(path) - sys.stdlib_module_names - {"models", "components", "pipelines"}:
            found = {distribution(provider) for provider in providers.get(name, [name])}
            used |= found
            if not found & (declared | optional):
                undeclared.add(f"{path.relative_to(ROOT)}: {name}")
    assert undeclared == set()
    assert declared - used == set(NEEDED)


def imports(path):
    """Top names of the packages that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_bad_input_is_never_an_assert():
    asserting = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("models", "components", "pipelines")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert asserting == []


def test_tests_mirror_the_source_and_share_helpers_only():
    tests = [path.relative_to(ROOT / "tests") for path in sources("tests") if path.name.startswith("test_")]
    folders = {path.parent for path in tests if path.parts[0] not in ("deploy", "e2e")}
    mirrored = [ROOT / folder for folder in folders]
    assert [path for path in mirrored if not path.is_dir() and not path.with_suffix(".py").is_file()] == []
    assert {path.parts[0] for path in tests} == {"models", "components", "pipelines", "benchmarks", "deploy", "e2e"}
    shared = re.compile(r"^(?:from|import) tests\.(?!helpers)", re.MULTILINE)
    assert [str(path) for path in tests if shared.search((ROOT / "tests" / path).read_text())] == []


def test_nothing_large_is_tracked():
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size >> 20} MiB"
        for path in tracked_files()
        if path.stat().st_size > 1 << 20 and ".dvc/sample" not in str(path)
    ]
    assert large == []
