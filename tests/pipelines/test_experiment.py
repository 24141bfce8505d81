"""`contrastive experiment`: options are checked before DVC runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from pipelines.experiment import write_composed
from tests.helpers.repository import ROOT, make_root

# a stage that runs wherever DVC does, and shows which parameters, interpreter and log it was given
STAGE = """
stages:
  show:
    cmd: >-
      python -c "import os, sys, yaml; print(yaml.safe_load(open('params.yaml'))['runtime']['epochs'], sys.prefix,
      os.environ.get('TF_CPP_MIN_LOG_LEVEL'))" > shown.txt
    params: [runtime]
    outs: [shown.txt]
  images:
    cmd: python -c "import pathlib; pathlib.Path('images').mkdir(); pathlib.Path('images/a').write_text('1')"
    params: [data]
    outs: [images]
  refuse:
    cmd: python -c "import sys, yaml; sys.exit(yaml.safe_load(open('params.yaml'))['runtime']['epochs'] == 13)"
    deps: [images]
    params: [runtime]
"""


def experiment(folder, *arguments, command="experiment"):
    # what the tests themselves are told of TensorFlow's log
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TF_CPP_")}
    return subprocess.run(
        [sys.executable, "-m", "pipelines", command, *arguments],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def repository(tmp_path):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    # of the defaults, as after `dvc pull`
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "sample" / "textures10.zip").touch()
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc")
    (tmp_path / "dvc.yaml").write_text(STAGE)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data=cifar", "did you mean cifar10?"),
        ("method.temperature=0", "method.temperature = 0"),
        ("data.path=own/photos.zip", "data.path = own/photos.zip: nothing there; put your images there, or"),
        ("encoder.weights=old/encoder", "encoder.weights = old/encoder: no such .keras file, or folder with one"),
    ],
)
def test_a_wrong_option_is_one_line_and_changes_nothing(repository, override, named):
    before = (repository / "params.yaml").read_text()
    done = experiment(repository, override)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and named in done.stderr and done.stderr.count("\n") == 1
    assert (repository / "params.yaml").read_text() == before
    assert not (repository / "shown.txt").exists()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository as far as composing goes, seen from a subfolder."""
    (make_root(tmp_path) / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.path=photos.zip", "data.path = photos.zip: nothing there below {root}; put your images there, or"),
        ("encoder.weights=old", "encoder.weights = old: no such .keras file, or folder with one; check the path"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_written(root, override, message):
    (root / "photos").mkdir()
    # a folder, but of no step
    (root / "old").mkdir()
    with pytest.raises(UserError) as error:
        write_composed(["data=folder", "data.path=photos", override])
    assert str(error.value).startswith(message.format(root=root))
    assert not (root / "params.yaml").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["data=folder", "data.path=photos"],
        ["data=folder", "data.path=photos", "encoder.weights=encoder/0"],
        ["data=folder", "data.path=https://example.org/photos.zip", "encoder.weights=models:/photos/3"],
        ["data=parquet", "data.path=s3://bucket/shards", "encoder.weights=runs:/1/encoder"],
        # its archives are fetched
        ["data=stl10"],
    ],
    ids=" ".join,
)
def test_paths_begin_at_the_top_folder_and_what_is_elsewhere_is_left_to_the_steps(root, overrides):
    (root / "photos").mkdir()
    (root / "encoder" / "0").mkdir(parents=True)
    (root / "encoder" / "0" / "encoder.keras").touch()
    write_composed(overrides)
    assert (root / "params.yaml").exists()


def test_what_a_fresh_clone_still_has_to_pull_is_not_missed(root):
    (root / "data.dvc").touch()
    write_composed([])
    # pulled, and without it
    (root / "data").mkdir()
    with pytest.raises(
        UserError, match=r"^data\.path = data/sample/textures10\.zip: nothing there .*dvc pull -r sample"
    ):
        write_composed([])


@pytest.mark.slow
def test_a_preset_reaches_the_stages(repository):
    done = experiment(repository, "preset=supcon-keras", "runtime.epochs=9")
    assert done.returncode == 0, done.stderr
    written = yaml.safe_load((repository / "params.yaml").read_text())
    assert written == compose_params(["preset=supcon-keras", "runtime.epochs=9", "gate.open_test=false"])[1]
    assert written["data"]["name"] == "cifar10"
    assert (repository / "shown.txt").read_text().split() == ["9", sys.prefix, "3"]


@pytest.mark.slow
def test_options_reach_the_stages(repository):
    done = experiment(repository, "runtime.epochs=7")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((repository / "params.yaml").read_text())["runtime"]["epochs"] == 7
    assert (repository / "shown.txt").read_text().split() == ["7", sys.prefix, "3"]
    # and the table of experiments tells them: of the workspace and of the experiment
    listed = experiment(repository, command="experiments")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("    runtime.epochs=7\n") == 2


def contents(folder):
    """Path → bytes of what an experiment may change."""
    files = [folder / "params.yaml", folder / "dvc.lock", folder / "shown.txt", *(folder / "images").rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.exists()}


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [7, 13])
def test_a_step_that_refuses_leaves_everything_as_it_was(repository, epochs):
    """Whether or not there was a run before: the first experiment fails, or the one after a good one."""
    if epochs == 7:
        assert experiment(repository, "runtime.epochs=7").returncode == 0
    before = contents(repository)
    assert ("images/a" in before) == (epochs == 7)
    done = experiment(repository, "runtime.epochs=13", "data.seed=5")
    assert done.returncode != 0
    if epochs == 7:
        assert contents(repository) == before
    else:
        assert contents(repository)["params.yaml"] == before["params.yaml"]
        assert not (repository / "dvc.lock").exists()
    assert done.stderr.endswith("are as before the experiment\n")


@pytest.mark.slow
def test_a_clone_that_lacks_its_data_is_told_how_to_get_them(repository):
    shutil.rmtree(repository / "data")
    (repository / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    stage = STAGE.replace("deps: [images]", "deps: [images, data/sample/textures10.zip]")
    (repository / "dvc.yaml").write_text(stage)
    done = experiment(repository, "runtime.epochs=7")
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == (
        "data.path = data/sample/textures10.zip: not here yet; `dvc pull data.dvc` gets it from your remote, the "
        "sample with `--remote sample`"
    )


@pytest.mark.slow
def test_the_test_set_is_opened_only_on_request(repository):
    def opened():
        return yaml.safe_load((repository / "params.yaml").read_text())["gate"]["open_test"]

    done = experiment(repository, "runtime.epochs=7")
    assert not opened()
    assert "the same command with --judge" in done.stdout
    done = experiment(repository, "runtime.epochs=7", "--judge")
    assert done.returncode == 0, done.stderr
    assert opened()
    refused = experiment(repository, "gate.open_test=true")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "with --judge, and only so" in refused.stderr


def names(repository):
    return subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "list", "--name-only"], cwd=repository, capture_output=True, text=True
    ).stdout.split()


@pytest.mark.slow
def test_a_sweep_is_an_experiment_for_each_combination(repository):
    done = experiment(repository, "method=simclr,byol", "runtime.epochs=8", "--name", "short")
    assert done.returncode == 0, done.stderr
    assert "experiment 1 of 2: method=simclr runtime.epochs=8" in done.stdout
    assert sorted(names(repository)) == ["short-1", "short-2"]
    written = yaml.safe_load((repository / "params.yaml").read_text())
    assert written["method"]["name"] == "byol" and written["runtime"]["epochs"] == 8


@pytest.mark.slow
def test_a_wrong_value_of_a_sweep_starts_none_of_it(repository):
    before = (repository / "params.yaml").read_text()
    done = experiment(repository, "method=simclr,byoll")
    assert done.returncode == 2
    assert "did you mean byol?" in done.stderr and done.stderr.count("\n") == 1
    assert (repository / "params.yaml").read_text() == before


@pytest.mark.slow
def test_a_sweep_ends_with_the_experiment_that_fails(repository):
    before = (repository / "params.yaml").read_text()
    done = experiment(repository, "runtime.epochs=13,8")
    assert done.returncode != 0
    assert "experiment 2" not in done.stdout
    assert (repository / "params.yaml").read_text() == before


@pytest.mark.slow
def test_a_queued_experiment_waits(repository):
    done = experiment(repository, "runtime.epochs=7,8", "--queue")
    assert done.returncode == 0, done.stderr
    assert "queued: 2; `dvc queue start` runs them" in done.stdout
    assert not (repository / "shown.txt").exists()
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "queue", "status"], cwd=repository, capture_output=True, text=True
    )
    assert status.stdout.count("Queued") == 2
