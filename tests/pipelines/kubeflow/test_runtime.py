"""What a component does in its container: composing, running a step, showing it, and ending."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import mlflow
import pytest
import yaml

from components.evaluate import evaluate
from components.shared.artifacts import Manifest, Result, read_record, write_record
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion
from components.shared.evaluation.gate import read_blessing
from components.shared.params.composing import compose_params
from components.shared.params.schema import params_digest, select, to_plain
from components.shared.steps import STEPS
from pipelines.kubeflow import pages, runtime
from pipelines.kubeflow.versions import data_version
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT
from tests.helpers.trained import write_all


class Artifact:
    """As KFP's, as far as a step sees it."""

    def __init__(self, path: Path):
        self.path, self.metadata = str(path), {}

    def log_metric(self, name, value):
        self.metadata[name] = value

    def log_confusion_matrix(self, names, counts):
        self.metadata["confusion"] = (names, counts)


class Status:
    state, error_message = "FAILED", "validate ended with 2"


# --- compose


@pytest.fixture(scope="module")
def composed(tracking_uri):
    """A function that composes options; step → settings."""

    def _composed(*overrides, data="", replicates="[0, 1, 2, 3]"):
        found = runtime.settings_of_steps(overrides, data, replicates)
        return {step: json.loads(settings) for step, settings in found.items()}

    return _composed


def changed(one, other):
    return {step for step in one if one[step] != other[step]}


def test_each_step_gets_the_parameters_that_it_declares(composed):
    params, _ = compose_params(["runtime.epochs=7"])
    found = composed("runtime.epochs=7")
    assert list(found) == [*STEPS, "gather"]
    for step in STEPS:
        settings = found[step]
        assert settings["params"] == to_plain(select(params, step))
        restored = runtime.from_plain(settings["params"], step)
        assert params_digest(restored) == params_digest(select(params, step))


TOLD = {"evaluate", "register"}


def test_the_steps_that_tell_how_to_make_the_run_again_are_told_its_overrides(composed):
    found = composed("runtime.epochs=7", "method=simclr")
    assert {step for step, value in found.items() if "overrides" in value} == TOLD
    assert all(found[step]["overrides"] == ["runtime.epochs=7"] for step in TOLD)


@pytest.mark.parametrize(
    ("override", "steps_changed"),
    [
        ("gate.min_gain=0.5", TOLD),
        # its views are what the search may augment with
        ("method.temperature=0.3", {"pretrain", "search", *TOLD}),
        # evaluate and register tell how the whole run is made again
        ("validation.min_pixel_std=2.0", {"validate", *TOLD}),
        ("supervised.batch_size=30", {"search", "baseline", "finetune", *TOLD}),
        # validate compares with the champion's dataset
        ("registry.model_name=other", {"validate", "champion", *TOLD}),
    ],
)
def test_an_option_changes_what_it_shapes_and_nothing_else(composed, override, steps_changed):
    assert changed(composed(), composed(override)) == steps_changed


def test_the_state_of_the_data_is_part_of_ingest_alone(composed):
    assert changed(composed(data="a"), composed(data="b")) == {"ingest"}


def test_more_replicates_change_nothing_of_the_others(composed):
    more = composed("runtime.replicates=[0,1,2,3,4,5,6]", replicates="[0, 1, 2, 3, 4, 5, 6]")
    # it tells what so many can prove; no training reads what it writes
    assert changed(composed(), more) == {"validate", *TOLD}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("runtime.epochs=x", 'runtime.epochs = "x": must be a valid integer'),
        (
            "runtime.replicates=[0,1,2,3,4]",
            "runtime.replicates = [0, 1, 2, 3, 4]: this pipeline was compiled for [0, 1, 2]; compile it again with "
            "runtime.replicates=[0,1,2,3,4], or run it with runtime.replicates=[0,1,2]",
        ),
    ],
)
def test_a_wrong_option_ends_the_step_with_one_line(override, message, capsys):
    with pytest.raises(SystemExit) as ended:
        runtime.settings_of_steps([override], "", "[0, 1, 2]")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_kubernetes_is_told_the_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(runtime, "_TERMINATION_LOG", tmp_path / "termination-log")
    with pytest.raises(SystemExit), runtime.user_errors_in_one_line():
        raise UserError("dataset: blank\nimages")
    assert (tmp_path / "termination-log").read_text() == "dataset: blank images"


# --- versions


def test_the_state_of_the_data_follows_files_and_folders(tmp_path):
    def version(*overrides):
        return data_version(compose_params(overrides)[0].data)

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"1")
    folder = f"data.path={tmp_path / 'images'}"
    first = version("data=folder", folder)
    assert version("data=folder", folder) == first
    (tmp_path / "images" / "b.png").write_bytes(b"22")
    assert version("data=folder", folder) != first
    file = f"data.path={tmp_path / 'images' / 'a.png'}"
    assert version("data=folder", file) != version("data=folder", f"data.path={tmp_path / 'images' / 'b.png'}")
    assert version("data=folder", f"data.path={tmp_path / 'none'}") == "not visible"
    assert version("data=cifar10") == "published"


def test_the_state_of_the_data_follows_links_but_not_in_a_circle(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"1")
    images = tmp_path / "images"
    images.mkdir()
    (images / "train").symlink_to(tmp_path / "real")
    params, _ = compose_params(["data=folder", f"data.path={images}"])
    first = data_version(params.data)
    (tmp_path / "real" / "b.png").write_bytes(b"2")
    second = data_version(params.data)
    (images / "test").symlink_to(tmp_path / "real")
    third = data_version(params.data)
    (tmp_path / "real" / "up").symlink_to(images)
    assert len({first, second, third}) == 3
    assert data_version(params.data) == third


# --- running a step


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tracking_uri):
    """Folders of a dataset, of three models on it, and of their evaluation."""
    root = tmp_path_factory.mktemp("trained")
    folders = {"dataset": make_dataset(root / "dataset")}
    folders |= write_all(root, folders["dataset"], baseline=0.6, probe=0.7, finetune=0.65)
    params = select(compose_params(["gate.min_accuracy=0.9"])[0], "evaluate")
    folders["evaluation"] = root / "evaluation"
    evaluate(*(folders[name] for name in (*STEPS["evaluate"].inputs, "evaluation")), params)
    return folders


def settings(step, *overrides):
    params = to_plain(select(compose_params(overrides)[0], step))
    return json.dumps({"params": params, "overrides": list(overrides)})


@pytest.fixture
def shown(tmp_path):
    """A function that makes an artifact in a folder of its own, as KFP does."""

    def _shown(name, exists=False):
        path = tmp_path / "outputs" / name
        path.parent.mkdir(exist_ok=True)
        if exists:
            path.mkdir()
        return Artifact(path)

    return _shown


def test_a_step_writes_its_folder_where_kubeflow_wants_it(trained, shown):
    # a volume may have been made there before
    out, metrics, verdict = shown("validation", exists=True), shown("metrics"), shown("verdict")
    inputs = [Artifact(trained["dataset"])]
    runtime.run("validate", settings("validate"), inputs, out, metrics=metrics, page=verdict)
    result = read_record(Path(out.path), Result)
    assert out.metadata == {"dataset_digest": result.dataset_digest, "mlflow_run_id": result.mlflow_run_id}
    assert metrics.metadata["critical"] == 0 == json.loads(Path(metrics.path).read_text())["critical"]
    assert Path(verdict.path).read_text().startswith("# Fit to learn from\n")
    assert sorted(path.name for path in Path(out.path).parent.iterdir()) == ["metrics", "validation", "verdict"]


def test_the_champion_reaches_the_evaluation_as_text(trained, shown, tracking_uri):
    said = runtime.champion(settings("champion", "registry.model_name=nobody"))
    assert Champion.model_validate_json(said) == Champion(model="nobody")
    inputs = [Artifact(trained[name]) for name in STEPS["evaluate"].inputs if name != "champion"]
    better = Champion(model="nobody", unavailable="no answer").model_dump_json()
    for champion, passed in ((said, True), (better, False)):
        out = shown("evaluation")
        blessing = runtime.evaluate(settings("evaluate"), inputs, champion, out)
        assert blessing.checks[-1].passed is passed
        assert blessing == read_blessing(Path(out.path))


def test_a_refused_dataset_ends_the_step(trained, shown, capsys):
    inputs = [Artifact(trained["dataset"])]
    wanted = settings("validate", "validation.min_images_per_class=900")
    with pytest.raises(SystemExit) as ended:
        runtime.run("validate", wanted, inputs, shown("validation"), metrics=shown("m"), page=shown("p"))
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not Path(shown("validation").path).exists()


@pytest.mark.parametrize("name", ["dataset", "probe"])
def test_an_artifact_says_whether_its_mlflow_run_lacked_something(trained, tmp_path, name):
    folder = shutil.copytree(trained[name], tmp_path / name)
    assert "mlflow_run" not in pages.facts(folder) and pages.facts(folder)["mlflow_run_id"]
    (folder / "tracking.json").touch()
    assert pages.facts(folder)["mlflow_run"] == "was not whole when the step ended: contrastive resend"


@pytest.mark.parametrize("step", ["pretrain", "search", "baseline", "finetune"])
def test_a_training_keeps_what_it_has_where_the_cluster_says(trained, shown, monkeypatch, tmp_path, step):
    asked = {}

    def train(dataset, out, params, seed, checkpoints):
        asked.update(seed=seed, checkpoints=checkpoints)
        raise UserError("enough")

    monkeypatch.setattr(f"components.{step}.{step}", train)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit):
        # as KFP hands a whole number on
        runtime.run(step, settings(step), [Artifact(trained["dataset"])], shown("encoder"), 7.0)
    assert asked == {"seed": 7, "checkpoints": tmp_path / "cache" / step}
    assert isinstance(asked["seed"], int)


def test_a_training_begins_by_removing_what_none_has_used_for_as_long_as_the_cluster_says(
    trained, shown, monkeypatch, tmp_path, capsys
):
    def train(*_, checkpoints, **__):
        raise UserError(f"finds {sorted(path.name for path in checkpoints.iterdir())}")

    monkeypatch.setattr("components.pretrain.pretrain", train)
    folder = tmp_path / "pretrain"
    folder.mkdir()
    for name, days in (("old", 8), ("new", 6)):
        (folder / f"{name}.npz").touch()
        moment = time.time() - days * 24 * 3600
        os.utime(folder / f"{name}.npz", (moment, moment))
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    for days, found in ((None, ["new.npz", "old.npz"]), ("7", ["new.npz"])):
        if days:
            monkeypatch.setenv("PIPELINE_CACHE_DAYS", days)
        with pytest.raises(SystemExit):
            runtime.run("pretrain", settings("pretrain"), [Artifact(trained["dataset"])], shown("encoder"), 7.0)
        assert f"finds {found}" in capsys.readouterr().err


# --- the page


def test_the_confusion_matrix_has_a_row_for_every_class(tmp_path):
    path = tmp_path / "confusion.csv"
    path.write_text("actual,predicted\nb,a\nb,b\nb,a\n")
    assert pages.confusion_counts(path, ["a", "b", "c"]) == (["a", "b", "c"], [[0, 0, 0], [2, 1, 0], [0, 0, 0]])
    path.write_text("actual,predicted\n")
    assert pages.confusion_counts(path, ["a"]) == (["a"], [])


def test_the_report_is_shown_as_a_page_and_as_markdown_without_files(trained, shown):
    page, text = shown("report"), shown("text")
    pages.show("evaluate", Path(trained["evaluation"]), [Path(trained["dataset"])], page=page, text=text)
    assert Path(page.path).read_text() == (trained["evaluation"] / "report.html").read_text()
    written = Path(text.path).read_text()
    assert (
        written.startswith("# Evaluation of tiny\n")
        and "## The models" in written
        and "## The same again" in written
    )
    assert "![" not in written


def test_a_refusal_is_told_with_its_reasons(trained, shown, capsys):
    page = shown("outcome")
    runtime.refuse(Artifact(trained["evaluation"]), page)
    assert "floor: " in capsys.readouterr().out
    text = Path(page.path).read_text()
    assert text.startswith("# Not registered\n") and "- floor: " in text


def test_a_registration_is_told_with_its_version(trained, tmp_path):
    common = read_record(trained["evaluation"], Result).model_dump(exclude={"details", "metrics", "step"})
    details = {"registered": True, "why": "contrastive-tiny version 3 is challenger"}
    write_record(tmp_path, Result(step="register", metrics={}, details=details, **common))
    text = pages.outcome(trained["evaluation"], tmp_path)
    assert text.startswith("# Put up for review\n")


def test_numbers_that_json_has_no_place_for_are_left_out(trained, shown, tmp_path):
    record = read_record(trained["probe"], Result)
    changed = record.model_copy(update={"metrics": {"accuracy": 0.5, "loss": float("nan")}})
    write_record(tmp_path, changed)
    metrics = shown("metrics")
    pages.show("baseline", tmp_path, [], metrics=metrics)
    assert metrics.metadata == {"accuracy": 0.5}


def test_class_names_can_not_break_the_table(trained, shown, tmp_path):
    manifest = read_record(trained["dataset"], Manifest)
    odd = manifest.model_copy(update={"class_names": ["a|b", "c\nd", "e"]})
    write_record(tmp_path, odd)
    page = shown("overview")
    pages.show("ingest", tmp_path, [], page=page)
    assert "| a\\|b | 0 | 8 | 4 | 10 |\n| c d |" in Path(page.path).read_text()


def test_the_captions_of_the_probe_say_what_is_drawn(tmp_path, shown):
    (tmp_path / "neighbours.png").write_bytes(b"png")
    page = shown("pictures")
    pages.show("probe", tmp_path, [], page=page)
    text = Path(page.path).read_text()
    assert text.count('src="data:image/png;base64,cG5n"') == 1
    # nearest_rows draws validation images alone
    assert "Validation images" in text and "test" not in text


# --- the end


def runs(name):
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(f"contrastive-{name}")
    return client.search_runs([experiment.experiment_id], "tags.step = 'pipeline'")


def test_the_end_of_a_run_is_kept_with_a_link(tracking_uri, in_tmp, monkeypatch):
    monkeypatch.setenv("PIPELINE_RUN_ID", "6f1c")
    monkeypatch.setenv("PIPELINE_PAGE", "https://kubeflow.example.org/pipeline/")
    runtime.record(Status, ["data.name=ended"])
    (kept,) = runs("ended")
    assert kept.info.status == "FAILED"
    assert kept.data.tags["pipeline.status"] == "FAILED"
    assert kept.data.tags["pipeline.error"] == "validate ended with 2"
    assert kept.data.tags["pipeline.run"] == "6f1c"
    assert kept.data.tags["pipeline.link"] == "https://kubeflow.example.org/pipeline/#/runs/details/6f1c"
    assert kept.data.params == {"overrides": "data.name=ended"}


def test_the_end_of_a_run_with_wrong_options_is_kept_too(tracking_uri, in_tmp):
    runtime.record(Status, ["runtime.epochs=x"])
    (kept,) = runs("runs")
    assert kept.data.params == {"overrides": "runtime.epochs=x"}


def test_settings_of_a_cluster_are_no_parameters():
    assert "cluster" not in yaml.safe_load((ROOT / "params.yaml").read_text())


def test_expectations_are_asked_in_the_order_of_their_file(composed):
    found = composed()["validate"]["params"]["validation"]["expectations"]
    assert list(found) == list(compose_params()[0].validation.expectations)
