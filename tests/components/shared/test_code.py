"""Which code counts for a step's result: one method's training does not follow another method's code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from components.shared.code import code_digest, shaping
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.steps import STEPS
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT

# option → module
METHODS = {
    path.stem: yaml.safe_load(path.read_text())["name"] for path in (ROOT / "conf" / "method").glob("[!_]*.yaml")
}


@pytest.fixture
def code(tmp_path):
    for name in ("components", "models"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digests(root, *overrides):
    params, _ = compose_params(overrides)
    return {step: code_digest(step, params, root) for step in STEPS}


def changed(before, after):
    return {step for step in before if before[step] != after[step]}


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("components/shared/evaluation/gate.py", {"evaluate", "register"}),
        ("models/methods/simclr.py", {"pretrain", "search"}),
        ("models/methods/byol.py", set()),
        ("models/knn.py", {"probe"}),
        ("models/encoders/resnet18.py", set()),
        ("components/shared/progress.py", set()),
        ("components/shared/sources/parquet.py", set()),
        ("components/ingest.py", {"ingest"}),
    ],
)
def test_a_changed_module_changes_the_steps_that_it_shapes(code, file, steps):
    before = digests(code)
    with (code / file).open("a") as module:
        module.write("\nCHANGED = True\n")
    assert changed(before, digests(code)) == steps


def test_a_comment_or_a_docstring_changes_nothing(code):
    before = digests(code)
    for file in ("models/knn.py", "models/methods/simclr.py"):
        text = (code / file).read_text()
        (code / file).write_text(text.replace('"""', '"""Changed. ', 1) + "\n# changed\n")
    assert digests(code) == before


@pytest.mark.slow
def test_a_method_has_its_own_code_and_what_it_imports(code):
    before = {name: digests(code, f"method={name}")["pretrain"] for name in METHODS}
    assert len(set(before.values())) == len(set(METHODS.values()))
    file = code / "models" / "methods" / "vicreg.py"
    file.write_text(file.read_text() + "\nCHANGED = True\n")
    assert changed(before, {name: digests(code, f"method={name}")["pretrain"] for name in METHODS}) == {"vicreg"}


def test_a_step_that_is_handed_its_own_parameters_alone_has_the_same_code():
    params, _ = compose_params(["method=byol", "encoder=resnet18"])
    assert code_digest("pretrain", select(params, "pretrain")) == code_digest("pretrain", params)


def is_empty(file):
    """A package that holds nothing, or finds what it holds by name."""
    lazy = file == "models/losses/__init__.py"
    return lazy or (file.endswith("/__init__.py") and "import " not in (ROOT / file).read_text())


PROGRAM = """
import json, sys
from pathlib import Path
from components.pretrain import pretrain
from components.shared.params.composing import compose_params
from components.shared.params.schema import select

dataset, out, *overrides = sys.argv[1:]
pretrain(Path(dataset), Path(out), select(compose_params(overrides)[0], "pretrain"), 0)
files = {module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}
Path("modules.json").write_text(json.dumps(sorted(files)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol", "moco"])
def test_what_a_training_really_imports_was_found(tmp_path, method):
    overrides = [f"method={method}", "runtime.epochs=1", "method.optimizer.warmup_epochs=0"]
    subprocess.run(
        [sys.executable, "-c", PROGRAM, make_dataset(tmp_path / "dataset"), tmp_path / "encoder", *overrides],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        check=True,
    )
    files = json.loads((tmp_path / "modules.json").read_text())
    loaded = {file.removeprefix(f"{ROOT}/") for file in files if file.startswith(str(ROOT / "models"))}
    found = set(shaping("pretrain", compose_params(overrides)[0]))
    # what watches the training, and what checks the parameters of all steps, does not shape it
    others = {f"models/{name}.py" for name in ("knn", "collapse", "classifier", "probes")}
    assert {file for file in loaded - found if not is_empty(file)} <= others
