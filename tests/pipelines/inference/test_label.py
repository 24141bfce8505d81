"""Which images are proposed to be labelled: diverse, uncertain, and by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from pipelines.__main__ import main
from pipelines.inference import label
from pipelines.inference.label import choose
from tests.helpers.datasets import make_dataset
from tests.helpers.options import network


def blobs(sizes: list[int], width: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Features in tight groups far from each other, and the group of each."""
    rng = np.random.default_rng(0)
    centers = 10 * np.eye(len(sizes), width)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return (centers[groups] + rng.normal(0, 0.1, (len(groups), width))).astype("float32"), groups


NOTHING = np.zeros((0, 4), "float32"), np.zeros(0, np.int64)


def test_without_labels_each_group_gives_its_middle_the_largest_first():
    features, groups = blobs([60, 240, 180, 120])
    chosen, margins, sizes = choose(features, *NOTHING, 4, seed=0)
    assert list(groups[chosen]) == [1, 2, 3, 0]
    assert sizes.sum() == 360 and list(sizes) == sorted(sizes, reverse=True)
    assert np.isnan(margins).all()
    again, _, _ = choose(features, *NOTHING, 4, seed=0)
    assert list(again) == list(chosen)


def test_a_group_with_a_label_is_not_asked_again():
    features, groups = blobs([30, 30, 30, 30])
    labelled = [0, 30]
    chosen, margins, _ = choose(np.delete(features, labelled, 0), features[labelled], groups[labelled], 2, seed=0)
    assert set(np.delete(groups, labelled)[chosen]) == {2, 3}
    assert margins.shape == (118,) and not np.isnan(margins).any()


def test_what_the_labels_leave_open_comes_first():
    # labelled groups left and right; of the two others, as large, one lies far left, one in the middle
    centers, sizes = np.array([(-3, -2), (-3, 1), (3, -2), (3, 1), (-6, 6), (0, 8)]), [60, 60, 60, 60, 80, 80]
    groups = np.repeat(np.arange(6), sizes)
    features = (centers[groups] + np.random.default_rng(0).normal(0, 0.1, (400, 2))).astype("float32")
    chosen, margins, _ = choose(features, features[:240:60], np.array([0, 0, 1, 1]), 2, seed=0)
    assert margins[groups == 5].max() < margins[groups == 4].min()
    assert list(groups[chosen]) == [5, 4]


def test_all_images_may_be_asked_for_and_copies_do_no_harm(monkeypatch):
    features, _ = blobs([6, 6])
    for rows in (features, np.repeat(features[:1], 12, axis=0)):
        for clusters in (500, 3):
            monkeypatch.setattr(label, "CLUSTERS", clusters)
            chosen, _, _ = choose(rows, *NOTHING, 12, seed=0)
            assert sorted(chosen) == list(range(12))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    from models import encoders

    root = tmp_path_factory.mktemp("label")
    make_dataset(root / "dataset")
    size = Dataset(root / "dataset").manifest.image_size
    encoders.deployable(network("fast", size, width=8)).save(root / "encoder.keras")
    encoders.deployable(network("fast", size + 1, width=8)).save(root / "other.keras")
    encoders.deployable(network("fast", size, channels=1, width=8)).save(root / "grey.keras")
    return root


def propose(place, *arguments: object) -> None:
    known = ("--dataset", place / "dataset", "--model", place / "encoder.keras")
    main([*map(str, ("label", "next", *arguments, *known[: 4 if "--model" not in arguments else 2]))])


def test_the_table_names_files_of_the_unlabelled_images(place, tmp_path, capsys):
    propose(place, 7, "--out", tmp_path / "next.csv")
    table = pd.read_csv(tmp_path / "next.csv")
    assert list(table) == ["path", "row", "margin", "stands_for"]
    assert len(table) == 7 and table["row"].is_unique
    files = Dataset(place / "dataset").files("unlabelled")["path"]
    assert list(table["path"]) == list(files[table["row"]])
    assert table["margin"].between(0, 1).all() and (table["stands_for"] >= 1).all()
    assert "7 of " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["99999"], "99999: .* unlabelled images; ask for fewer"),
        (["5", "--out", "next.json"], "a table ends in .csv"),
        (["5", "--model", "other.keras"], "other.keras: was trained on"),
        (
            ["5", "--model", "grey.keras"],
            "grey.keras: was trained with data.channels=1, .*dataset has 3",
        ),
        (["0"], "Input should be greater than"),
    ],
)
def test_wrong_usage_is_one_line(place, arguments, words, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match=words):
        propose(place, *arguments)
    assert not list(place.glob("*.csv"))
