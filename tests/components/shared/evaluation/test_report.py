"""The report: what it tells of a verdict, and that it tells nothing of a test set that stayed closed."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.shared.artifacts import Manifest
from components.shared.cost import Cost
from components.shared.evaluation.evidence import Rivals, Slice
from components.shared.evaluation.feature_drift import FeatureDrift
from components.shared.evaluation.gate import held_out, score
from components.shared.evaluation.looks import MemoryLedger
from components.shared.evaluation.measured import Measured, measure
from components.shared.evaluation.predictions import read_suspects
from components.shared.evaluation.report import Findings, write_report
from components.shared.training.curves import Curve
from tests.helpers.gate import NAMES, classes_of, decided, make_result, make_search, make_three, make_truth, rival

TEST_PICTURES = {"accuracies", "recall", "confusion", "reliability", "coverage", "budgets"}


def cost(cpu, gpu, peak) -> Cost:
    return Cost(cpu_seconds=cpu, gpu_seconds=gpu, peak_mebibytes=peak, watt_hours=cpu / 100)


def make_findings(folders, truth, candidates, search=None, **more) -> Findings:
    search = search or make_search(truth)
    blessing = decided(candidates, truth, search=search, **more)
    scores = score(candidates, truth) if blessing.judged else {}
    table = pd.DataFrame({"accuracy": [0.5, 0.6], "validation_accuracy": [0.4, 0.5], "loss": [2, 1]}, index=[1, 2])
    counts = {"unlabelled": 4000, "train": 800, "validation": 800, "test": 800}
    common = make_result("ingest", truth).model_dump(exclude={"dataset_digest", "metrics", "details", "step"})
    return Findings(
        manifest=Manifest(
            step="ingest", name="insects", source="data/insects.zip", source_digest="5" * 64, class_names=NAMES,
            counts=counts, class_counts={}, image_size=32, labels_per_class=200, seed=0, digest="d" * 64,
            cuts_validation=True, files={},
            test_digest="t" * 64, **common,
        ),
        truth=truth,
        blessing=blessing,
        candidates=candidates,
        validated={name: right.mean(axis=1) for name, right in held_out(candidates, truth).items()},
        scores=scores,
        curves=[Curve("finetune", table, table, table)],
        search=search,
        measured=measure(blessing, candidates, scores, truth, folders) if scores else Measured(),
        costs={"pretrain": cost(7000, 3500, 900), "finetune": cost(1500, 0, 1200)},
        lineage={"git.commit": "c" * 40},
        params={},
        run_id="f" * 32,
    )  # fmt: skip


def write_extras(root, truth) -> dict[str, Path]:
    """Folders with what is shown and decides nothing; the published training is half right."""
    folders = {name: root / name for name in ("probe", "baseline", "finetune")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    labels = truth.labels["test"]
    predicted = np.stack([[np.where(np.arange(800) < share, labels, labels - 1)] * 3 for share in (200, 600)])
    np.savez(
        folders["probe"] / "budgets.npz", predicted=predicted, labels_per_class=[1, 10], knn_predicted=predicted[0]
    )
    half = np.eye(4)[np.where(np.arange(800) < 400, labels, (labels + 1) % 4)]
    np.savez(folders["finetune"] / "published.npz", test_probabilities=np.stack([half] * 3))
    return folders


def told(folder, findings) -> tuple[str, str]:
    """The page, and its text alone: blanks as one, markup gone."""
    write_report(folder, findings)
    page = (folder / "report.html").read_text()
    body = re.sub(r"(?s)<style>.*</style>|<[^>]*>", " ", page[page.index("<body>") :])
    return page, re.sub(r"\s+", " ", unescape(body))


@pytest.fixture(scope="module")
def truth():
    return make_truth()


@pytest.fixture(scope="module")
def judged(truth, tmp_path_factory):
    """A second look, with a champion, an unknown slice and a weaker gate: findings, page and text."""
    ledger = MemoryLedger()
    ledger.claim("another", truth.images, {})
    candidates = make_three(truth, temperature=1.31, temperature_why="from 800 images", replicates=5)
    right = np.random.default_rng(0).random(800) < 0.7
    folder = tmp_path_factory.mktemp("judged")
    findings = make_findings(
        write_extras(folder, truth),
        truth,
        candidates,
        ledger=ledger,
        rivals=Rivals(found=[rival(truth, right, version="7")]),
        slices=[*classes_of(truth), Slice("folder", "odd", np.arange(9))],
        search=make_search(truth, capped=["baseline"]),
        min_gain=0.0,
    )
    return findings, folder, *told(folder, findings)


def test_a_judged_run_tells_claim_look_and_what_the_test_set_can_show(judged):
    findings, _, _, text = judged
    blessing = findings.blessing
    assert blessing.blessed and blessing.look == 2
    assert "✓ Blessed" in text
    low, high = (f"{100 * end:+.1f}" for end in blessing.interval)
    assert f"a gain of {100 * blessing.gain:+.1f} points (98.5 % interval {low} to {high})" in text
    assert "with these labels . Trainings and test images both count as draws from many" in text
    assert "Look 2 at these test images; it may err with 0.76 %, of 5 % for all looks together." in text
    assert re.search(
        r"With 800 test images and 5 replicates, look 2 shows a true gain of \d+\.\d points in 80", text
    )
    assert "Weaker than the default gate: min_gain = 0.0 instead of 0.02. Approving it takes --override." in text


def test_models_have_mean_and_spread_with_n_minus_1_and_the_file_its_own_accuracy(judged):
    findings, _, _, text = judged
    for name in ("baseline", "probe", "finetune"):
        values = 100 * findings.scores[name].accuracy
        assert f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" in text
    own = findings.blessing.artefact
    assert f"best on held-out images. It answers {own.accuracy:.1%} of the test images right" in text
    assert "fine-tuned as published (not gated) 50.0 ± 0.0" in text


def test_what_ships_is_called_the_best_only_where_something_was_held_out_to_choose_by(truth, tmp_path):
    candidates = make_three(truth)
    for candidate in candidates.values():
        candidate.result.details["answers_of_search"] = True
    _, text = told(tmp_path, make_findings(write_extras(tmp_path, truth), truth, candidates))
    assert "What ships is one of them: the fine-tuned model of the first seed. It answers" in text


def test_both_grids_stand_side_by_side_with_the_choice_and_the_cap(judged):
    _, _, page, text = judged
    assert "4 trials of the baseline and 4 trials of fine-tuning" in text
    assert "Baseline, from scratch: the longest that was tried was best." in text
    assert "Fine-tuned model: the longest" not in text
    rows = re.findall(r"augmentation (\w+), learning rate ([\d.]+), weight decay", text)
    assert len(rows) == 1 + 4
    assert page.count("✓ 1.000") == 2 * 2


def test_slices_come_worst_first_and_unknown_ones_by_name(judged):
    findings, _, _, text = judged
    part = text[text.index("Change against the baseline") : text.index("The champion")]
    drops = sorted(-found.drop for found in findings.blessing.slices if not found.unknown)
    changes = [float(value) for value in re.findall(r"class \w+ 200 ([+-]\d+\.\d)", part)]
    assert changes == [pytest.approx(100 * drop, abs=0.051) for drop in drops]
    assert "neither passed nor refused: folder odd (9)." in part


def test_what_is_not_judged_is_measured_too(judged):
    measured = judged[0].measured
    assert measured.budgets == {1: [0.25] * 3, 10: [0.75] * 3}
    assert measured.knn == [0.25] * 3
    assert measured.published == [0.5] * 3
    assert set(measured.calibration) == {"baseline", "probe", "finetune"}


def test_champion_and_calibration(judged):
    findings, _, _, text = judged
    rival = findings.blessing.champion
    assert f"version 7, on {rival.images} test images" in text
    assert (
        f"{100 * rival.difference:+.1f} points, at least {100 * rival.low:+.1f} points with 95 % certainty" in text
    )
    assert "ECE NLL Brier temperature fine-tuned model 0." in text
    assert "fine-tuned model: from 800 images" in text
    assert "is 95% right on held-out images. On test this leaves" in text


def test_what_each_step_cost_is_told_and_added_up(judged):
    *_, text = judged
    assert "pretrain 7,000 3,500 900 70 finetune 1,500 0 1,200 15 all 8,500 3,500 1,200 85" in text


def test_every_picture_is_within_the_page(judged):
    _, folder, page, _ = judged
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == TEST_PICTURES | {"curves"}
    assert page.count('src="data:image/png;base64,') == page.count("<img") == len(drawn)
    assert not {"<script", "http:", "https:"} & set(re.findall(r"<script|https?:", page))


@pytest.mark.parametrize(
    ("levels", "options", "why"),
    [
        ({}, {"open_test": False}, "nobody asked for a verdict"),
        ({"finetune": 0.645, "probe": 0.645}, {}, "on held-out"),
    ],
)
def test_a_closed_test_set_leaves_no_trace(truth, tmp_path, levels, options, why):
    candidates = make_three(truth, **levels)
    findings = make_findings(write_extras(tmp_path, truth), truth, candidates, **options)
    _, text = told(tmp_path, findings)
    assert f"Not judged: the test set stayed closed. Why: {why}" in text
    assert {path.stem for path in tmp_path.glob("*.png")} == {"curves"}
    for heading in ("Slices", "The champion", "What a confidence is worth", "Fewer labels", "What is claimed"):
        assert heading not in text
    for candidate in candidates.values():
        right = candidate.probabilities["test"].argmax(axis=2) == truth.labels["test"]
        assert f"{100 * right.mean():.1f}" not in re.sub(r"\d+\.\d ± \d+\.\d", "", text)
    assert "The search" in text
    means = 100 * findings.validated["finetune"]
    assert f"{means.mean():.1f} ± {means.std(ddof=1):.1f}" in text


def test_a_search_that_can_not_be_read_is_left_out(truth, tmp_path):
    for details in (
        {"trials": 3},
        {"trials": {"baseline": []}},
        {"chosen": {}},
        {"trials": {"baseline": [{"a": 1}]}},
    ):
        findings = make_findings(
            write_extras(tmp_path, truth), truth, make_three(truth), search=make_search(truth, **details)
        )
        _, text = told(tmp_path, findings)
        assert "✗ Not blessed" in text or not details.get("trials")
        assert "The search" not in text


def test_names_of_classes_are_drawn_as_they_are_written(truth, tmp_path, monkeypatch):
    """Matplotlib takes text between dollars for mathematics, and stops at what is none."""
    names = ["$a", "b$", "$\\frac{$", "<b>"]
    monkeypatch.setattr("tests.helpers.gate.NAMES", names)
    odd = make_truth()
    object.__setattr__(odd, "class_names", names)
    findings = make_findings(write_extras(tmp_path, odd), odd, make_three(odd))
    assert findings.blessing.judged
    page, text = told(tmp_path, findings)
    assert "$\\frac{$" in text
    assert "<b>" not in page


def test_labels_to_look_at_are_named_by_their_files(judged, tmp_path):
    findings, _, page, _ = judged
    assert "Labels to look at" not in page
    rows = [{"path": f"train/<{n}>.png", "label": "ant", "neighbours_label": "bee", "share": 0.9, "own_share": 0.05}
            for n in range(12)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "label_suspects.csv", index=False)
    suspects = read_suspects(tmp_path)
    picture = tmp_path / "suspects.png"
    picture.write_bytes(b"png")
    page, text = told(tmp_path, replace(findings, suspects=suspects, suspects_picture=picture))
    assert "12 labels of train and validation may be wrong" in text
    assert text.count("90%, 5% for its own") == 10
    assert "train/&lt;0&gt;.png" in page
    assert "base64,cG5n" in page
    (tmp_path / "label_suspects.csv").write_text("nothing")
    assert read_suspects(tmp_path).empty


def test_the_report_tells_how_far_images_have_moved_or_why_that_is_not_known(judged, tmp_path):
    findings, *_ = judged
    moved = Rivals([rival(make_truth(), np.ones(800, bool), "7")], drift=[FeatureDrift("test", 0.6, 0.1)])
    page, text = told(tmp_path, replace(findings, rivals=moved))
    assert "feature drift: test: warning: these are other images than before (version 7's features have" in text
    assert "moved by 6.0 times what chance gives" in text
    assert 'class="no">feature drift' in page
    _, text = told(tmp_path, replace(findings, rivals=Rivals(no_drift="there is no champion")))
    assert "feature drift: not measured: there is no champion" in text


def test_accuracy_is_told_without_the_test_images_that_have_near_copies(judged, truth, tmp_path):
    findings, *_ = judged
    twins = np.arange(800) < 100
    folders = write_extras(tmp_path, truth)
    found = measure(findings.blessing, findings.candidates, findings.scores, truth, folders, twins)
    for name, accuracy in found.without_twins.items():
        right = findings.candidates[name].probabilities["test"].argmax(axis=2) == truth.labels["test"]
        assert accuracy == pytest.approx(right[:, 100:].mean())
    _, text = told(tmp_path, replace(findings, measured=found))
    assert "Near-copies of 100 test images were learned from; accuracy on the others: baseline" in text
    assert f"{found.without_twins['finetune']:.1%} instead of {np.mean(found.accuracies['finetune']):.1%}" in text
    for none in (None, np.zeros(800, bool), np.ones(800, bool)):
        found = measure(findings.blessing, findings.candidates, findings.scores, truth, folders, none)
        assert not found.without_twins
    assert "ear-copies" not in told(tmp_path, replace(findings, measured=found))[1]
