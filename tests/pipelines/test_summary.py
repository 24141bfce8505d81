"""The closing table, and composing params.yaml."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from components.shared.artifacts import Record, Result, write_record
from components.shared.evaluation.evidence import Artefact, Check
from components.shared.evaluation.gate import CHECKS, Blessing
from components.shared.evaluation.measured import Measured
from pipelines.__main__ import main
from tests.helpers.repository import ROOT, make_root

COMMON = {"params": {}, "params_digest": "p", "inputs": {}, "seconds": 1.0, "mlflow_run_id": "r"}
MEASURED = Measured(
    accuracies={"baseline": [0.60, 0.62, 0.64], "probe": [0.70, 0.71, 0.72], "finetune": [0.75, 0.75, 0.75]},
    intervals={"baseline": (0.581, 0.659), "finetune": (0.729, 0.771)},
)
VALIDATED = {
    **dict(baseline_validation_accuracy=0.61, probe_validation_accuracy=0.7, finetune_validation_accuracy=0.74),
    **dict(validation_gain=0.13, judged=1, blessed=1),
}


@pytest.fixture
def root(in_tmp):
    """The repository, whose sample is still to be pulled."""
    (in_tmp / "data.dvc").touch()
    return make_root(in_tmp)


def write_evaluation(root: Path, blessing: Blessing, measured: Measured | None = MEASURED, **metrics) -> None:
    folder = root / "evaluation"
    folder.mkdir()
    (folder / "blessing.json").write_text(blessing.model_dump_json())
    if measured is not None:
        (folder / "test.json").write_text(measured.model_dump_json())
    metrics = metrics or VALIDATED
    cost = {"cpu_seconds": 90, "gpu_seconds": 0, "peak_mebibytes": 800, "watt_hours": 0.25}
    details = {"costs": {"probe": cost, "finetune": cost}}
    write_record(folder, Result(step="evaluate", dataset_digest="d", metrics=metrics, details=details, **COMMON))


def write_registration(root: Path, **details) -> None:
    folder = root / "registration"
    folder.mkdir()
    write_record(folder, Result(step="register", dataset_digest="d", metrics={}, details=details, **COMMON))


def make_blessing(failing=(), **update) -> Blessing:
    checks = [
        Check(name=name, value=0.1, threshold=0.2, passed=name not in failing, why=f"because of {name} " * 8)
        for name in CHECKS
    ]
    values = {
        "blessed": not failing,
        "winner": "finetune",
        "dataset_digest": "d",
        "test_digest": "t",
        "gain": 0.13,
        "interval": (0.101, 0.158),
        "confidence": 0.94,
        "artefact": Artefact(accuracy=0.75, low=0.731, high=0.768),
        "look": 1,
        "alpha": 0.0304,
        "policy": {"alpha": 0.05},
        **update,
    }
    return Blessing(checks=checks, **values)


def test_a_blessed_run(root, capsys):
    write_evaluation(root, make_blessing())
    write_registration(root, registered=True, why="contrastive-sample version 3 is challenger", version="3")
    main(["summary"])
    assert capsys.readouterr().out.splitlines() == [
        "accuracy in per cent        validation          test   94 % interval",
        "baseline, from scratch            61.0    62.0 ± 2.0   58.1 to 65.9",
        "linear probe                      70.0    71.0 ± 1.0",
        "fine-tuned model (winner)         74.0    75.0 ± 0.0   72.9 to 77.1",
        "gain over the baseline           +13.0         +13.0   +10.1 to +15.8",
        "the model that ships                            75.0   73.1 to 76.8",
        "",
        "verdict   blessed: every check of the gate passed",
        "look      Look 1 at these test images; it may err with 3 %, of 5 % for all",
        "          looks together.",
        "registry  contrastive-sample version 3 is challenger",
        "cost      3.0 min of a processor core, 800 MiB at most, some 0.5 Wh",
        "details   evaluation/report.html; `make ui` opens the MLflow page on all runs",
    ]


def test_a_closed_test_set_shows_no_number_of_test(root, capsys):
    closed = {
        "judged": False,
        "closed": "nobody asked for a verdict",
        "look": None,
        "alpha": None,
        "artefact": None,
    }
    blessing = make_blessing(failing=CHECKS[1:], gain=None, interval=None, **closed)
    write_evaluation(root, blessing, measured=None)
    write_registration(root, registered=False, why="not judged: …")
    main(["summary"])
    assert capsys.readouterr().out.splitlines()[:8] == [
        "accuracy in per cent        validation",
        "baseline, from scratch            61.0",
        "linear probe                      70.0",
        "fine-tuned model (winner)         74.0",
        "gain over the baseline           +13.0",
        "",
        "verdict   not judged: the test set stayed closed: nobody asked for a verdict",
        "registry  not registered",
    ]


def test_before_anything_is_trained_it_tells_what_the_test_images_can_prove(root, capsys):
    said = "with 600 test images and 3 replicates, a first look shows a true gain of 5.5 points in 80 of 100 cases"
    folder = root / "validation"
    folder.mkdir()
    write_record(
        folder, Result(step="validate", dataset_digest="d", metrics={}, details={"provable": said}, **COMMON)
    )
    main(["summary"])
    assert " ".join(capsys.readouterr().out.split()) == f"can prove {said}"
    write_evaluation(root, make_blessing())
    write_registration(root, registered=True, why="contrastive-sample version 3 is challenger")
    main(["summary"])
    out = capsys.readouterr().out
    assert "verdict   blessed" in out
    assert " ".join(out.split()).endswith(f"can prove {said}")


def test_a_probe_that_wins_with_fewer_right_held_out_images_says_why(root, capsys):
    write_evaluation(root, make_blessing(winner="probe"))
    write_registration(root, registered=True, why="contrastive-sample version 3 is challenger", version="3")
    main(["summary"])
    assert capsys.readouterr().out.splitlines()[7:11] == [
        "verdict   blessed: every check of the gate passed",
        "winner    On held-out images the fine-tuned model is 4.0 points ahead of the",
        "          linear probe, less than a standard error: then the simpler model",
        "          wins.",
    ]


def test_a_weaker_gate_is_said(root, capsys):
    write_evaluation(root, make_blessing(weaker=["min_gain = 0.0 instead of 0.02"]))
    write_registration(root, registered=True, why="contrastive-sample version 3 is challenger")
    main(["summary"])
    assert "- weaker than the default gate: min_gain = 0.0 instead of 0.02" in capsys.readouterr().out


def test_a_refused_run_gives_every_reason_within_80_columns(root, capsys):
    write_evaluation(root, make_blessing(failing=("gain", "slices")))
    write_registration(root, registered=False, why="not blessed: …")
    main(["summary"])
    out = capsys.readouterr().out
    assert "verdict   not blessed" in out
    assert "- gain: because of gain" in out
    assert "- slices: because of slices" in out
    assert "certainty" not in out
    assert "registry  not registered\n" in out
    assert max(map(len, out.splitlines())) < 80


def test_a_blessed_model_that_could_not_be_registered_says_why(root, capsys):
    write_evaluation(root, make_blessing())
    write_registration(root, registered=False, why="the model does not answer in a fresh process: " + "word " * 40)
    main(["summary"])
    out = capsys.readouterr().out
    assert "not registered: the model does not answer in a fresh process" in out
    assert max(map(len, out.splitlines())) < 80


@pytest.mark.parametrize(
    "change", [lambda checks: checks.pop(), lambda checks: checks.append(checks[0] | {"name": "new"})]
)
def test_the_verdict_of_another_version_is_shown(root, capsys, change):
    write_evaluation(root, make_blessing())
    write_registration(root, registered=True, why="contrastive-sample version 3 is challenger")
    path = root / "evaluation" / "blessing.json"
    values = json.loads(path.read_text())
    change(values["checks"])
    path.write_text(json.dumps({**values, "schema_version": 2}))
    main(["summary"])
    assert "verdict   blessed" in capsys.readouterr().out


def test_models_that_were_not_scored(root, capsys):
    blessing = make_blessing(failing=("inputs",), winner=None, gain=None, interval=None, artefact=None)
    write_evaluation(root, blessing, measured=None, baseline_validation_accuracy=0.6)
    write_registration(root, registered=False, why="not blessed")
    main(["summary"])
    out = capsys.readouterr().out
    assert "fine-tuned model            not scored" in out
    assert "gain over" not in out


def pipelines(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=False,
    )


def one_line_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    return done.stderr


@pytest.mark.slow
def test_missing_folders_are_a_one_line_error(root):
    assert "evaluation/result.json: missing" in one_line_error(pipelines(root, "summary"))
    write_evaluation(root, make_blessing())
    assert "registration/result.json: missing" in one_line_error(pipelines(root, "summary"))
    (root / "evaluation" / "blessing.json").unlink()
    assert "evaluation/blessing.json: missing" in one_line_error(pipelines(root, "summary"))


def test_a_damaged_record_is_a_one_line_error(root, capsys):
    write_evaluation(root, make_blessing())
    folder = root / "registration"
    folder.mkdir()
    (folder / "result.json").write_text(Record(step="register", **COMMON).model_dump_json())
    assert "registration/result.json: dataset_digest" in one_line_error(pipelines(root, "summary"))


@pytest.mark.slow
def test_compose_writes_what_is_allowed(root):
    done = pipelines(root, "compose", "gate=strict", "runtime.epochs=7")
    assert done.returncode == 0, done.stderr
    values = yaml.safe_load((root / "params.yaml").read_text())
    assert values["runtime"]["epochs"] == 7
    strict = yaml.safe_load((ROOT / "conf" / "gate" / "strict.yaml").read_text())
    assert {key: value for key, value in strict.items() if key != "defaults"}.items() <= values["gate"].items()
    assert sorted(path.name for path in root.iterdir()) == ["conf", "data.dvc", "dvc.yaml", "params.yaml"]


@pytest.mark.slow
def test_compose_leaves_the_file_alone_when_an_option_is_wrong(root):
    (root / "params.yaml").write_text("as it was\n")
    assert "gate.min_gain" in one_line_error(pipelines(root, "compose", "gate.min_gain=2"))
    assert (root / "params.yaml").read_text() == "as it was\n"
    assert "no/params.yaml" in one_line_error(pipelines(root, "compose", "--out", "no/params.yaml"))
