"""`contrastive experiments`: DVC's answer as a table of 80 columns."""

from __future__ import annotations

from pipelines.experiment_table import table

METRICS = {
    "baseline_validation_accuracy": 0.5666,
    "probe_validation_accuracy": 0.7333,
    "finetune_validation_accuracy": 0.7,
    "validation_gain": 0.1667,
    "judged": 1,
    "blessed": 1,
}
PARAMS = {
    "runtime": {"epochs": 60, "replicates": [0, 1]},
    "method": {"name": "simclr"},
    "gate": {"open_test": True},
}


def revision(rev, params=PARAMS, metrics=METRICS):
    """A row as `dvc exp show --json` of DVC 3.67 writes it."""
    data = {
        "rev": rev,
        "params": {"params.yaml": {"data": params}},
        "metrics": {"metrics.json": {"data": metrics}} if metrics else {},
    }
    return {"rev": rev, "name": None, "data": data, "error": None, "experiments": None}


def experiment(name, revision, state=None):
    return {"name": name, "revs": [revision], "executor": {"state": state, "name": "dvc-task"} if state else None}


def commit(rev, name, *experiments, **given):
    return {**revision(rev, **given), "name": name, "experiments": list(experiments) or None}


def changed(**options):
    return {**PARAMS, "runtime": {**PARAMS["runtime"], **options}, "gate": {"open_test": False}}


def test_each_experiment_tells_its_numbers_and_what_it_changed():
    closed = {**METRICS, "judged": 0, "blessed": 0}
    shown = [
        revision("workspace"),
        commit(
            "41f8cd7930f514d4",
            "main",
            experiment("longer", revision("02b64d90", changed(epochs=120), closed)),
            experiment("worse", revision("12b64d90", changed(replicates=[0, 1, 2]), {**METRICS, "blessed": 0})),
            experiment("next", revision("821ed491", changed(epochs=7), None), "queued"),
        ),
    ]
    assert table(shown) == [
        "on held-out images, in per cent",
        "                               baseline  probe  fine-tuned   gain  verdict",
        "workspace                          56.7   73.3        70.0  +16.7  blessed",
        "main                               56.7   73.3        70.0  +16.7  blessed",
        "  longer                           56.7   73.3        70.0  +16.7  not judged",
        "    runtime.epochs=120",
        "  worse                            56.7   73.3        70.0  +16.7  not blessed",
        "    runtime.replicates=[0,1,2]",
        "  next                                                             queued",
        "    runtime.epochs=7",
    ]


def test_of_earlier_commits_those_with_experiments_are_listed():
    shown = [
        revision("workspace", {**PARAMS, "method": {"name": "byol"}}),
        commit("a" * 40, "main"),
        commit("b" * 40, None, metrics=None),
        commit("c" * 40, None, experiment("old", revision("d" * 40))),
    ]
    lines = table(shown)
    assert [line.split()[0] for line in lines[2:]] == ["workspace", "method.name=byol", "main", "ccccccc", "old"]


def test_what_dvc_could_not_read_is_left_empty():
    missing = {"error": {"type": "FileNotFoundError", "msg": "No such file"}}
    broken = {
        **revision("workspace"),
        "data": {"params": {"params.yaml": missing}, "metrics": {"metrics.json": missing}},
    }
    failed = {**revision("e" * 40), "data": None, "error": {"type": "CalledProcessError", "msg": "1"}}
    lines = table([broken, commit("a" * 40, "main", experiment("lost", failed, "failed"))])
    assert lines[2].split() == ["workspace"]
    assert lines[-1].split() == ["lost", "failed"]


def test_every_line_fits_80_columns():
    many = {f"an_option_with_a_name_of_its_own_{number}": number for number in range(40)}
    name = "a-name-that-somebody-chose-to-tell-all-about-it"
    shown = [revision("workspace"), commit("a" * 40, "main", experiment(name, revision("b" * 40, changed(**many))))]
    lines = table(shown)
    assert f"  {name}" in lines
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "    … 40 values in all; `dvc exp show` has them"
    assert len(lines) < 12


def test_without_experiments_there_is_the_workspace():
    assert table([revision("workspace")])[-1].startswith("workspace")
