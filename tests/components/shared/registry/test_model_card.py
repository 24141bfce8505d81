"""The model card and the tags of a version: what they say, and that they fit however many classes there are."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from components.shared.artifacts import Manifest, Result
from components.shared.evaluation.evidence import Check
from components.shared.evaluation.gate import CHECKS, Artefact, Blessing
from components.shared.evaluation.measured import Measured
from components.shared.registry.model_card import LONGEST, about_model, model_card
from components.shared.registry.version_tags import Subject, tagged_gain, version_tags
from components.shared.registry.versions import all_tags
from components.shared.steps import STEPS
from components.shared.tracking.earlier_runs import StepRun

MEASURED = {
    "model_mebibytes": 0.5,
    "memory_mebibytes": 890.3,
    "load_seconds": 7.91,
    "latency_ms_batch_1": 41.2,
    "latency_ms_batch_32": 55.0,
    "http_latency_ms_batch_1": 48.0,
    "http_latency_ms_batch_32": 120.0,
    "served_difference": 1e-7,
}
SECTIONS = [
    "Intended use", "Data", "Method", "Numbers", "Slices", "In use", "Limits", "Reproduce", "Call", "Runs",
]  # fmt: skip


def make_subject(class_names: list[str], winner: str = "finetune", **manifest: object) -> Subject:
    """A version of a run with so many classes; the last one lost most, the first one gained most."""
    classes = len(class_names)
    common = {
        "params": {},
        "params_digest": "abcdef01" * 8,
        "inputs": {},
        "seconds": 1.0,
        "mlflow_run_id": "1" * 32,
    }
    change = np.linspace(0.2, -0.04, classes)
    recall = {"baseline": [0.5] * classes, "probe": (0.4 + change).tolist(), "finetune": (0.5 + change).tolist()}
    checks = [Check(name=name, value=0.5, threshold=0.1, passed=True, why=f"{name} is as asked") for name in CHECKS]
    checks[4] = checks[4].model_copy(update={"why": f"recall of the worst class, {class_names[0]}, changes by −4"})
    fields = {
        **dict(name="textures", source="data/textures.zip", source_digest="5" * 64, class_names=class_names),
        **dict(counts={"unlabelled": 4000, "train": 100, "validation": 200, "test": 2000}, class_counts={}),
        **dict(
            image_size=32,
            labels_per_class=10,
            seed=0,
            cuts_validation=True,
            files={},
            digest="d" * 64,
            test_digest="e" * 64,
        ),
        **manifest,
    }
    details = {
        "learning_rate": 0.001,
        "exported_seed": 1,
        "temperature": 1.31,
        "temperature_why": "from 400 images",
    }
    return Subject(
        blessing=Blessing(
            **dict(blessed=True, winner=winner, checks=checks, dataset_digest="d" * 64, test_digest="e" * 64),
            **dict(gain=0.0812, interval=(0.061, 0.1), confidence=0.95, look=2, replicates=3),
            **dict(alpha=0.0076, policy={"alpha": 0.05}),
            artefact=Artefact(accuracy=0.5812, low=0.55, high=0.61),
            weaker=["min_gain = 0.0 instead of 0.02", "alpha = 0.1 instead of 0.05"],
        ),
        manifest=Manifest(step="ingest", **common, **fields),
        winner=Result(step=winner, **common, dataset_digest="d" * 64, metrics={}, details=details),
        probe=Result(
            **dict(
                step="probe", dataset_digest="d" * 64, metrics={}, details={"method": "nnclr", "encoder": "conv"}
            ),
            **common,
        ),
        evaluation=Result(
            **dict(step="evaluate", dataset_digest="d" * 64),
            metrics={},
            details={
                "costs": {
                    step: {"cpu_seconds": 5400, "gpu_seconds": 3600, "peak_mebibytes": 2000.4, "watt_hours": 315}
                    for step in ("pretrain", "finetune")
                }
            },
            **common,
        ),
        test=Measured(
            accuracies={"baseline": [0.5] * 3, "probe": [0.55] * 3, "finetune": [0.58, 0.58, 0.5836]},
            intervals={"baseline": (0.47, 0.53), "probe": (0.52, 0.58), "finetune": (0.55, 0.61)},
            recall=recall,
            calibration={winner: {"ece": 0.025, "log_loss": 1.1, "brier": 0.5}},
        ),
        lineage={"git.commit": "c" * 40, "dvc.data": "f" * 32, "pipeline.run": "nightly-7"},
        runs={step: StepRun(f"{index}" * 32, "12") for index, step in enumerate(STEPS)},
        measured=MEASURED,
        overrides=("method=byol", "runtime.replicates=[0,1,2]"),
    )


def sections(card: str) -> dict[str, str]:
    """Heading → text below it; what precedes the first heading has the heading ""."""
    parts = re.split(r"^### (.+)\n", card, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def rows(text: str) -> list[list[str]]:
    """Cells of a section's table of fixed width, the heading first."""
    return [re.split(r"  +", line.strip()) for line in text.split("```")[1].strip().splitlines()]


def test_the_card_answers_what_a_reviewer_asks():
    subject = make_subject(["blobs", "grid", "rings"])
    card = model_card(subject, "shop-photos", "7")
    said = sections(card)
    assert list(said) == ["", *SECTIONS]
    first, blessed = said[""].splitlines()[:3:2]
    assert first == "**`shop-photos` version 7: 58.1 % accuracy**, 95 % interval 55.0 to 61.0, a fine-tuned model."
    assert blessed.startswith("**Blessed: +8.1 points (95 % interval +6.1 to +10.0) of accuracy over")
    assert "on 2,000 test images" in said[""]
    assert "3 classes" in said["Intended use"]
    assert "`blobs`, `grid`, `rings`" in said["Intended use"]
    assert "4,000 images without labels and 100 with labels (10 per class)" in said["Data"]
    assert "`data/textures.zip`" in said["Data"]
    assert "`conv`, pretrained with `nnclr`" in said["Method"]
    assert "learning rate 0.001" in said["Method"]
    assert "Of 3 replicates, whole trainings with seeds of their own, this is the best" in said["Method"]
    assert ["58.1 ± 0.2 %", "55.0 to 61.0", "fine-tuned model"] in rows(said["Numbers"])
    assert ["50.0 ± 0.0 %", "47.0 to 53.0", "baseline, from scratch"] in rows(said["Numbers"])
    assert ["58.1 %", "55.0 to 61.0", "this file alone, a fine-tuned model"] in rows(said["Numbers"])
    assert "\n- certainty passed: certainty is as asked\n" in said["Numbers"]
    assert rows(said["Slices"]) == [
        ["points", "recall", "baseline's", "class"],
        ["-4.0", "46.0 %", "50.0 %", "rings"],
        ["+8.0", "58.0 %", "50.0 %", "grid"],
        ["+20.0", "70.0 %", "50.0 %", "blobs"],
    ]
    assert re.findall(r".*\d%.*", card) == []
    # in MLflow's page the columns of a Markdown table stand too close to be read
    assert "|" not in card
    lines = said["Numbers"].split("```")[1].strip().splitlines()
    named = ("model", "baseline", "linear", "fine", "this")
    assert {line.index(word) for line, word in zip(lines, named, strict=True)} == {32}
    assert "weakest is `rings`, with 46.0 %" in said["Slices"]
    assert "file 0.5 MiB, memory 890 MiB, loads in 7.9 s, answers one image in 41 ms, 32 in 55 ms" in said["In use"]
    took = "3.0 h of a processor core, 2.0 h of a GPU, 2,000 MiB at most, some 630 Wh"
    assert f"Making it took {took}." in said["In use"]
    assert "nothing is known of others" in said["Limits"]
    assert "not another choice of labels" in said["Limits"]
    assert "off by 2.5 points on average (ECE), after a temperature of 1.31 (from 400 images)" in said["Limits"]
    assert "Look 2 at these test images; it may err with 0.76 %, of 5 % for all looks together." in said[""]
    assert "Weaker than the default gate: min\\_gain = 0.0 instead of 0.02" in said[""]
    again = "contrastive compose method=byol 'runtime.replicates=[0,1,2]' && make repro"
    assert f"```\ngit checkout {'c' * 40} && {again}\n```\nFrom commit `cccccccccccc`" in said["Reproduce"]
    assert "finetune `abcdef01`" in said["Reproduce"]
    assert 'mlflow.pyfunc.load_model("models:/shop-photos/7")' in said["Call"]
    assert "mlflow models serve -m models:/shop-photos/7 --env-manager local" in said["Call"]
    for index, step in enumerate(STEPS):
        assert f"[{step}](#/experiments/12/runs/{str(index) * 32})" in said["Runs"]


def test_the_probe_is_described_as_what_it_is():
    subject = make_subject(["a", "b"], winner="probe")
    said = sections(model_card(subject, "m", "1"))
    assert said["Method"].startswith("Linear probe: ")
    assert "a linear classifier on its frozen features" in said["Method"]
    assert ["55.0 ± 0.0 %", "52.0 to 58.0", "linear probe"] in rows(said["Numbers"])
    assert rows(said["Slices"])[1][1:] == ["36.0 %", "50.0 %", "b"]


NAMES = {
    "short": lambda index: f"c{index}",
    "long": lambda index: f"a class with a very long name that nobody would want to read {index} " * 3,
    "odd": lambda index: f"a|b`c`\n*d*<script>{index}",
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("classes", [2, 10, 200, 1000])
def test_the_card_fits_and_is_whole(kind, classes):
    names = [NAMES[kind](index) for index in range(classes)]
    long = {"name": "d" * 60, "source": "/very/long" * 40} if kind == "long" else {}
    subject = make_subject(names, **long)
    model = "m" * 100 if kind == "long" else "m"
    if kind == "long":
        # as long as a card shows one
        subject = replace(subject, overrides=["data.path=" + "p" * 500])
    card = model_card(subject, model, "123")
    assert len(card) <= LONGEST
    said = sections(card)
    assert list(said) == ["", *SECTIONS]
    assert card.count("```") % 2 == 0
    assert card.endswith("`report.html` of evaluate.")
    assert {len(row) for row in rows(said["Numbers"])} == {3}
    assert {len(row) for row in rows(said["Slices"])} == {4}
    assert len(rows(said["Slices"])) >= 3
    first, last = rows(said["Slices"])[1], rows(said["Slices"])[-1]
    assert (first[0], last[0]) == ("-4.0", "+20.0")
    if classes > 30:
        assert "that lost and the" in said["Slices"]
    if kind == "short" and classes == 1000:
        assert "`c28`, `c29` and 970 more" in said["Intended use"]
        assert len(rows(said["Slices"])) == 11
    assert "<script>" not in re.sub(r"```.*?```|`[^`]*`", "", card, flags=re.DOTALL)


def test_a_card_is_made_of_what_there_is():
    """Records of older runs lack intervals, recall and run ids; a tree without git lacks the commit."""
    subject = make_subject(["a", "b"])
    bare = replace(
        subject,
        test=subject.test.model_copy(update={"intervals": {}, "recall": {}, "calibration": {}}),
        lineage={"git.commit": "unknown", "git.dirty": "true"},
        runs={"ingest": StepRun("9" * 32, None)},
        overrides=None,
    )
    said = sections(model_card(bare, "m", "1"))
    assert set(SECTIONS) - set(said) == {"Slices"}
    assert f"ingest `{'9' * 32}`" in said["Runs"]
    assert "```\nmake repro\n```\nThe options of the run are not known" in said["Reproduce"]
    assert "with changes that were not committed" in said["Reproduce"]
    assert ["58.1 ± 0.2 %", "fine-tuned model"] in rows(said["Numbers"])
    assert "A probability" not in said["Limits"]


def test_a_command_that_a_card_has_no_room_for_is_left_to_the_report():
    subject = replace(make_subject(["a", "b"]), overrides=["data.path=" + "p" * 5000])
    card = model_card(subject, "m", "1")
    assert len(card) <= LONGEST
    assert "it stands at the end of the report. From commit" in sections(card)["Reproduce"]


def test_a_registered_model_says_what_it_is():
    about = about_model(make_subject(["a", "b"]), "shop-photos")
    assert about.startswith("Classifiers of images of the kind of `textures`, 2 classes")
    assert "model card" in about and "contrastive review show <version> --model shop-photos" in about


def test_a_class_without_test_images_is_left_out_of_the_slices():
    subject = make_subject(["a", "b", "c"])
    recall = {"baseline": [0.5, None, 0.5], "finetune": [0.5, None, 0.75]}
    told = replace(subject, test=subject.test.model_copy(update={"recall": recall}))
    assert [row[-1] for row in rows(sections(model_card(told, "m", "1"))["Slices"])[1:]] == ["a", "c"]


def test_tags_name_verdict_data_code_method_runs_and_measurements():
    subject = make_subject(["a", "b"])
    own = version_tags(subject)
    # with the digest of the file; more would hide those of a review on the version's page
    assert len(own) + 1 < 10
    assert {"verdict", "weaker", "test_accuracy", "gain", "dataset", "dataset_digest", "method"} < set(own)
    tags = all_tags(own)
    expected = {
        **dict(verdict="blessed", winner="finetune", gain="0.0812", gain_interval="0.061 0.1", confidence="0.95"),
        **dict(dataset="textures", dataset_digest="d" * 64, test_digest="e" * 64, test_accuracy="0.5812"),
        **dict(test_accuracy_interval="0.55 0.61", look="2", replicates="3"),
        **dict(weaker="min_gain = 0.0 instead of 0.02; alpha = 0.1 instead of 0.05"),
        **dict(git_commit="c" * 40, pipeline_run="nightly-7", method="nnclr", encoder="conv"),
        **dict(load_seconds="7.91", latency_ms_batch_32="55", memory_mebibytes="890.3", model_mebibytes="0.5"),
    }
    assert expected.items() <= tags.items()
    assert {f"run.{step}" for step in STEPS} <= set(tags)
    assert not {"git_dirty", "options_changed"} & set(tags)
    assert "served_difference" not in tags
    assert all(isinstance(value, str) and value for value in tags.values())


@pytest.mark.parametrize("details", ["", "{", "[1]", "null", "3"])
def test_details_that_somebody_changed_are_left_out(details):
    tags = version_tags(make_subject(["a", "b"])) | {"details": details}
    assert all_tags(tags) == tags
    assert tagged_gain(tags) == "+8.1 points"


def test_versions_of_before_have_a_tag_for_each():
    tags = version_tags(make_subject(["a", "b"]))
    single = {key: value for key, value in all_tags(tags).items() if key != "details"}
    assert all_tags(single) == single
    assert tagged_gain(single) == tagged_gain(tags) == "+8.1 points (95 % interval +6.1 to +10.0)"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "+8.1 points (95 % interval +6.1 to +10.0)"),
        ({"confidence": "high"}, "+8.1 points (interval +6.1 to +10.0)"),
        ({"gain_interval": "0.061"}, "+8.1 points"),
        ({"gain": "nan"}, ""),
        ({"gain": "much"}, ""),
    ],
)
def test_the_gain_is_told_as_far_as_the_tags_tell_it(changed, said):
    assert tagged_gain({**all_tags(version_tags(make_subject(["a", "b"]))), "details": "{}", **changed}) == said


def test_a_version_without_tags_tells_no_gain():
    assert tagged_gain({}) == ""


@pytest.mark.parametrize(("channels", "words"), [(1, "grey"), (3, "colour"), (4, "four-channel")])
def test_the_card_tells_what_images_it_takes(channels, words):
    card = model_card(make_subject(["a", "b"], channels=channels), "m", "1")
    assert f"It takes {words} images of 32×32 pixels" in card
    assert f"uint8 (N, 32, 32, {channels}) to" in card
