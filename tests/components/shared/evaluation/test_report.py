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
from components.shared.checks.verdict import Verdict
from components.shared.cost import Cost
from components.shared.evaluation.evidence import Rivals, Slice
from components.shared.evaluation.examples import Example, Examples, Neighbours
from components.shared.evaluation.feature_drift import FeatureDrift
from components.shared.evaluation.gate import held_out, score
from components.shared.evaluation.looks import MemoryLedger
from components.shared.evaluation.markdown import to_markdown
from components.shared.evaluation.measured import Measured, measure
from components.shared.evaluation.predictions import read_suspects
from components.shared.evaluation.report import Findings, render_report, write_report
from components.shared.evaluation.wording import percent
from components.shared.training.curves import Curve
from tests.helpers.gate import NAMES, classes_of, decided, make_result, make_search, make_three, make_truth, rival

TEST_PICTURES = {"accuracies", "recall", "confusion", "reliability", "coverage", "budgets"}
CURVES = {"curves", "losses", "pretraining", "pretraining_loss"}


def cost(cpu, gpu, peak, device=None) -> Cost:
    known = dict(cpu_seconds=cpu, gpu_seconds=gpu, peak_mebibytes=peak, watt_hours=cpu / 100)
    return Cost(**known, device_peak_mebibytes=device)


def layer(kind, output, weights):
    return {"kind": kind, "output": output, "weights": weights}


def make_findings(folders, truth, candidates, search=None, **more) -> Findings:
    search = search or make_search(truth)
    blessing = decided(candidates, truth, search=search, **more)
    scores = score(candidates, truth) if blessing.judged else {}
    measured = {"accuracy": [0.5, 0.6], "validation_accuracy": [0.4, 0.5], "loss": [2, 1]}
    table = pd.DataFrame(measured, index=[1, 2])
    known = {"contrastive_loss": [3, 2.5], "contrastive_accuracy": [0.25, 0.5], "validation_probe_accuracy": 0.375}
    pretraining = pd.DataFrame(known, index=[1, 2])
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
        pretraining=Curve("pretraining", pretraining, pretraining, pretraining),
        search=search,
        measured=measure(blessing, candidates, scores, truth, folders) if scores else Measured(),
        costs={"pretrain": cost(7000, 3500, 900, 640), "finetune": cost(1500, 0, 1200)},
        lineage={"git.commit": "c" * 40},
        params={},
        run_id="f" * 32,
        checks=Verdict(passed=True, expectations=[{}] * 24, findings=[]),
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
    np.savez(folders["baseline"] / "budgets.npz", predicted=predicted[:1], labels_per_class=[5])
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
    candidates = make_three(
        truth, temperature=1.31, temperature_why="from 800 images", replicates=5, pretraining_runs=["1" * 32],
        replicate_seconds=[60.0, 90.0, 120.0, 150.0, 180.0], pretraining_seconds=[600.0] * 5,
    )  # fmt: skip
    small = {"encoder": [layer("Conv2D", [15, 15, 8], 224), layer("ReLU", [15, 15, 8], 0)]}
    top = {"classifier": [layer("Dense", [4], 36)]}
    candidates["probe"].result.details["networks"] = {
        **small,
        "projection head": [layer("Dense", [16], 144)],
        **top,
    }
    candidates["finetune"].result.details["networks"] = {**small, **top}
    metrics = {"training_accuracy": 0.987, "training_accuracy_std": 0.012}
    candidates = {
        name: replace(candidate, result=candidate.result.model_copy(update={"metrics": metrics}))
        for name, candidate in candidates.items()
    }
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


def test_models_tell_their_minutes_and_networks_their_layers_and_weights(judged):
    _, _, page, text = judged
    table = page[page.index('<h2 id="models">') : page.index("The networks")]
    rows = [re.findall(r"<td[^>]*>([^<]*)", row) for row in table.split("<tr>")]
    minutes = {row[0].strip(): row[-1] for row in rows if row}
    # two of the training, and ten of the pretraining before it
    assert minutes["baseline, from scratch"] == "2.0"
    assert minutes["linear probe"] == minutes["fine-tuned model"] == "12.0"
    # the encoder is one and the same
    for row in ("encoder 2 224", "projection head 1 144", "classifier of the linear probe 1 36",
                "classifier of the fine-tuned model and baseline 1 36", "Conv2D 15 × 15 × 8 224"):  # fmt: skip
        assert text.count(row) == 1, row


@pytest.mark.parametrize("networks", [3, {"encoder": 3}, {"encoder": [{"kind": "Dense"}]}])
def test_networks_and_minutes_that_a_record_does_not_tell_are_left_out(truth, tmp_path, networks):
    candidates = make_three(truth, networks=networks, replicate_seconds="long")
    _, text = told(tmp_path, make_findings(write_extras(tmp_path, truth), truth, candidates))
    assert "The models" in text and "The networks" not in text


def test_models_have_mean_and_spread_with_n_minus_1_and_the_file_its_own_accuracy(judged):
    findings, _, _, text = judged
    for name in ("baseline", "probe", "finetune"):
        values = 100 * findings.scores[name].accuracy
        assert f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" in text
    # records tell it of the images that were learned from
    assert text.count("98.7 ± 1.2") == 3
    own = findings.blessing.artefact
    assert f"best on held-out images. It answers {percent(own.accuracy)} of the test images right" in text
    assert "fine-tuned as published (not gated) 50.0 ± 0.0" in text


def test_what_ships_is_called_the_best_only_where_something_was_held_out_to_choose_by(truth, tmp_path):
    candidates = make_three(truth)
    for candidate in candidates.values():
        candidate.result.details["answers_of_search"] = True
    _, text = told(tmp_path, make_findings(write_extras(tmp_path, truth), truth, candidates))
    assert "What ships is one of them: the fine-tuned model of the first seed. It answers" in text


def test_a_probe_that_wins_with_fewer_right_held_out_images_says_why(truth, judged, tmp_path):
    assert "simpler model wins" not in judged[3]
    candidates = make_three(truth, probe=0.84, finetune=0.85)
    findings = make_findings(write_extras(tmp_path, truth), truth, candidates)
    probe, finetune = (findings.validated[name].mean() for name in ("probe", "finetune"))
    assert findings.blessing.winner == "probe" and finetune > probe
    said = f"the fine-tuned model is {100 * (finetune - probe):.1f} points ahead of the linear probe, less than"
    assert said in told(tmp_path, findings)[1]


def test_both_grids_stand_side_by_side_with_the_choice_and_the_cap(judged):
    _, _, page, text = judged
    assert "4 trials of the baseline and 4 trials of fine-tuning" in text
    assert "Baseline, from scratch: the longest that was tried was best." in text
    assert "Fine-tuned model: the longest" not in text
    rows = re.findall(r"augmentation (\w+), learning rate ([\d.]+), weight decay", text)
    assert len(rows) == 1 + 4
    assert page.count("✓ 1.000") == 2 * 2
    assert "epochs longer than the row says" not in text


def test_a_baseline_that_was_trained_longer_is_judged_and_told(truth, tmp_path):
    candidates, search = make_three(truth), make_search(truth, baseline_more_epochs=25)
    search.details["chosen"]["baseline"] = {**search.details["chosen"]["baseline"], "epochs": 35}
    candidates["baseline"].result.details["epochs"] = 35
    findings = make_findings(write_extras(tmp_path, truth), truth, candidates, search=search)
    assert findings.blessing.judged
    page, text = told(tmp_path, findings)
    assert "was 25 epochs longer than the row says: as many as the pretraining had." in text
    # both sides' choice is the same row
    assert page.count("✓ 1.000") == 2 * 2


def test_slices_come_worst_first_and_unknown_ones_by_name(judged):
    findings, _, _, text = judged
    part = text[text.index("Change against the baseline") : text.rindex("What a confidence is worth")]
    drops = sorted(-found.drop for found in findings.blessing.slices if not found.unknown)
    changes = [float(value) for value in re.findall(r"class \w+ 200 ([+-]\d+\.\d)", part)]
    assert changes == [pytest.approx(100 * drop, abs=0.051) for drop in drops]
    assert "neither passed nor refused: folder odd (9)." in part


def test_what_is_not_judged_is_measured_too(judged):
    measured = judged[0].measured
    assert measured.budgets == {1: [0.25] * 3, 10: [0.75] * 3}
    assert measured.baseline_budgets == {5: [0.25] * 3}
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
    assert "ECE, points NLL Brier temperature fine-tuned model" in text
    assert "fine-tuned model: from 800 images" in text
    assert "is 95 % right on held-out images. On test this leaves" in text


def test_what_each_step_cost_is_told_and_added_up(judged):
    *_, text = judged
    assert "GPU MiB at most" in text
    assert "pretrain 7,000 3,500 900 640 70 finetune 1,500 0 1,200 – 15 all 8,500 3,500 1,200 640 85" in text


def test_every_picture_is_within_the_page(judged):
    _, folder, page, _ = judged
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == TEST_PICTURES | CURVES
    assert page.count("<svg ") == len(drawn)
    assert not re.findall(r"<script|https?:|<link|@import|url\((?!#)", page)
    assert len(page) < 500_000


SECTIONS = [
    *("Why", "The models", "Fewer labels", "Learning curves", "The search", "Classes and slices"),
    *(
        "What a confidence is worth",
        "The data",
        "What the checks of the data found",
        "The gate: look and power",
        "What it cost",
        "Lineage",
        "The same again",
    ),
]


def test_sections_stand_in_the_order_of_a_reviewer_and_the_top_leads_to_each(judged):
    _, _, page, _ = judged
    found = re.findall(r'<h2 id="([^"]+)">([^<]+)</h2>', page)
    assert [title for _, title in found] == SECTIONS
    assert re.findall(r'<a href="#([^"]+)">', page) == [anchor for anchor, _ in found]


def test_the_same_stands_in_markdown_without_what_is_folded_away(judged):
    _, folder, page, _ = judged
    text = (folder / "report.md").read_text()
    assert re.findall(r"(?m)^## (.*)$", text) == SECTIONS
    assert text.startswith("# Evaluation of insects\n\n**✓ Blessed: fit to be put up for review.**\n")
    linked = re.findall(r"(?m)^!\[(.+)\]\((\w+)\.png\)$", text)
    assert {name for _, name in linked} == TEST_PICTURES | CURVES
    assert all((folder / f"{name}.png").exists() for _, name in linked)
    # every row of a table has as many cells as its head
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        head, rule, *rows = table.splitlines()
        assert set(rule) <= set("|- ") and rows
        assert {row.replace("\\|", "").count("|") for row in (rule, *rows)} == {head.count("|")}
    assert "<" not in text and "All 4 trainings" in page and "All 4 trainings" not in text


@pytest.mark.parametrize(
    ("overrides", "command"),
    [
        (["method=byol", "probe.l2=[0.1]"], "contrastive compose method=byol 'probe.l2=[0.1]' && "),
        ([], "contrastive compose && "),
        (None, ""),
    ],
)
def test_one_command_makes_it_again_as_far_as_the_options_are_known(judged, overrides, command):
    findings, *_ = judged
    *_, last = to_markdown(render_report(replace(findings, overrides=overrides), {})).split("## The same again\n")
    assert f"\ngit checkout {'c' * 40} && {command}make repro\n" in last
    assert ("the options of this run are not known" in " ".join(last.split())) == (overrides is None)


def test_every_picture_is_described_in_words(judged):
    findings, _, page, _ = judged
    described = re.findall(r'<svg [^>]*aria-label="([^"]{30,})"', page)
    assert len(described) == page.count("<svg ") == len(TEST_PICTURES | CURVES)
    # a number and its per cent stay on one line
    means = [
        f"{100 * findings.scores[name].accuracy.mean():.1f}\N{NO-BREAK SPACE}%"
        for name in ("baseline", "probe", "finetune")
    ]
    assert any(all(mean in alt for mean in means) for alt in described)
    assert not re.findall(r'<img(?![^>]* alt="[^"]+")[^>]*>', page)


def test_the_pretraining_tells_its_loss_and_what_the_encoder_knows(judged, tmp_path):
    findings, _, page, text = judged
    assert "Loss of the pretraining: mean over replicates, band from lowest to highest." in text
    assert "At the end: contrastive loss 2.5." in page
    ends = "other view found among a batch's 50.0 %, online probe on validation 37.5 %"
    assert f"At the end: {ends}.".replace(" %", "\N{NO-BREAK SPACE}%") in unescape(page)
    # not known, or measured by no epoch
    nothing = pd.DataFrame({"contrastive_loss": [np.nan]}, index=[1])
    for known in (None, Curve("pretraining", nothing, nothing, nothing)):
        assert "Loss of the pretraining" not in told(tmp_path, replace(findings, pretraining=known))[1]


def test_a_check_is_told_in_points_and_per_cent(judged):
    findings, _, _, text = judged
    blessing = findings.blessing
    part = text[text.index("result found asked for reason") : text.index("What is claimed")]
    assert f"gain ✓ passed {100 * blessing.gain:+.1f} points 0 points" in part
    low = next(check.value for check in blessing.checks if check.name == "certainty")
    assert f"certainty ✓ passed {100 * low:+.1f} points 0 points" in part
    assert f"floor ✓ passed {100 * blessing.artefact.accuracy:.1f} % 50.0 %" in part
    drop = max(found.drop for found in blessing.slices if not found.unknown)
    assert f"slices ✓ passed {-100 * drop:+.1f} points -10.0 points" in part


def test_few_labels_are_told_with_the_baseline_beside_them(judged):
    findings, _, page, text = judged
    rival, every = findings.scores["baseline"].accuracy.mean(), findings.measured.budgets[10]
    assert np.mean(every) > rival
    # the probe has 1 and 10 labels per class, the baseline 5 and 10
    assert "With 10 labels per class the linear probe answers 75.0 % right; the baseline with all 10" in text
    assert (
        f"baseline, from scratch: 25.0 % with 5, {percent(rival)} with 10; linear probe: 25.0 % with 1, 75.0 % with"
        in page.replace("\N{NO-BREAK SPACE}", " ")
    )


def test_every_per_cent_and_every_change_is_written_alike(judged, tmp_path):
    findings, *_ = judged
    rows = [{"path": "a.png", "label": "ant", "neighbours_label": "bee", "share": 0.9, "own_share": 0.05}]
    example, near = Example("data:,", "b.png", "ant", "bee", "bee", 0.987), ["data:,"]
    examples = Examples(
        **{kind: [example] for kind in ("repaired", "broken", "mistakes")},
        **dict.fromkeys(("repaired_count", "broken_count", "mistakes_count"), 1),
        **dict(agreement=0.891, neighbours=[Neighbours("ant", "data:,", near, ["bee"], [False])]),
    )
    measured = findings.measured.model_copy(update={"twins": 3, "without_twins": {"probe": 0.5}})
    page, _ = told(tmp_path, replace(findings, suspects=pd.DataFrame(rows), examples=examples, measured=measured))
    # what is written, and what is said of pictures
    said = re.sub(r"(?s)<style>.*?</style>", "", unescape(page))
    said = "\n".join([re.sub(r"<[^>]*>", " ", said), *re.findall(r' (?:aria-label|alt|title)="([^"]*)"', said)])
    for blank, text in (("\N{NO-BREAK SPACE}", said), (" ", (tmp_path / "report.md").read_text())):
        assert {"99", "89", "90", "5", "50.0"} <= set(re.findall(rf"([\d.]+){blank}%", text))
        assert re.findall(rf".*\d(?!{blank})\s?%.*", text) == []
        changes = re.findall(r"[+-][\d.]+(?= points)", text)
        assert len(changes) > 5 and all(re.fullmatch(r".\d+\.\d", change) for change in changes)


def test_each_run_is_named_that_of_the_pretraining_too(judged):
    *_, text = judged
    part = text[text.rindex("Lineage") :]
    steps = re.findall(r"MLflow run of (\w+) [0-9a-f]{32}", part)
    assert steps == ["ingest", "pretrain", "search", "baseline", "probe", "finetune", "evaluate"]
    assert f"MLflow run of pretrain {'1' * 32}" in part


def test_classes_come_most_changed_first_with_both_recalls(judged):
    findings, _, _, text = judged
    part = text[text.index("Classes whose recall") : text.index("Slices Change against")]
    rows = re.findall(r"(\w+) 200 ([\d.]+) ([\d.]+) ([+-][\d.]+)", part)
    assert {name for name, *_ in rows} == set(NAMES)
    changes = [float(after) - float(before) for _, before, after, _ in rows]
    assert [abs(change) for change in changes] == sorted(map(abs, changes), reverse=True)
    assert changes == [pytest.approx(float(said), abs=0.11) for *_, said in rows]
    recall = {name: 100 * findings.scores[name].recall.mean(axis=0) for name in ("baseline", "finetune")}
    for name, before, after, _ in rows:
        label = NAMES.index(name)
        assert float(before) == pytest.approx(recall["baseline"][label], abs=0.051)
        assert float(after) == pytest.approx(recall["finetune"][label], abs=0.051)


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
    assert {path.stem for path in tmp_path.glob("*.png")} == CURVES
    for heading in ("Slices", "The champion", "What a confidence is worth", "Fewer labels", "What is claimed",
                    "Images that changed", "The surest mistakes", "Nearest neighbours", "A map"):  # fmt: skip
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
    assert text.count("90 %, 5 % for its own") == 10
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
    without, mean = found.without_twins["finetune"], np.mean(found.accuracies["finetune"])
    assert f"{percent(without)} instead of {percent(mean)}" in text
    for none in (None, np.zeros(800, bool), np.ones(800, bool)):
        found = measure(findings.blessing, findings.candidates, findings.scores, truth, folders, none)
        assert not found.without_twins
    assert "ear-copies" not in told(tmp_path, replace(findings, measured=found))[1]
