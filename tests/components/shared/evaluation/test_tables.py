"""Tables of the test images for MLflow's page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from components.shared.artifacts import Dataset
from components.shared.evaluation import tables
from components.shared.evaluation.measured import Measured
from components.shared.evaluation.tables import classes_table, mistakes_table, write_table
from tests.helpers.datasets import make_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset with two test images of each of three classes."""
    return Dataset(make_dataset(tmp_path_factory.mktemp("tables") / "dataset", test=6))


def answers(labels, wrong):
    """Probabilities that are right but for `wrong`: row → how sure of the next class."""
    right = np.eye(3, dtype=np.float32)[labels]
    for row, sure in wrong.items():
        right[row] = (1 - sure) / 2
        right[row, (labels[row] + 1) % 3] = sure
    return right


def test_the_surest_mistakes_are_listed_in_the_order_of_the_images(data, monkeypatch):
    labels, names = data.labels("test"), data.manifest.class_names
    before, after = answers(labels, {}), answers(labels, {4: 0.9, 1: 0.8, 2: 0.5})
    monkeypatch.setattr(tables, "MOST_MISTAKES", 2)
    table = mistakes_table(data, before, after)
    assert list(table["row"]) == [1, 4]
    assert list(table["file"]) == list(data.files("test")["path"].iloc[[1, 4]])
    assert list(table["probability"]) == [0.8, 0.9]
    assert list(table["probability_of_actual"]) == [0.1, 0.05]
    assert list(table["predicted"]) == [names[(labels[row] + 1) % 3] for row in (1, 4)]
    assert list(table["baseline"]) == list(table["actual"]) == [names[labels[row]] for row in (1, 4)]


def test_each_class_has_what_the_models_get_right_and_what_it_is_taken_for(data, tmp_path):
    labels, names = data.labels("test"), data.manifest.class_names
    predicted = np.where(labels == 1, 2, labels)
    table = classes_table(data, Measured(recall={"finetune": [1.0, 0.0, None]}), predicted)
    assert list(table["class"]) == names and list(table["images"]) == list(np.bincount(labels))
    assert list(table["most_mistaken_for"].fillna("")) == ["", names[2], ""]
    write_table(tmp_path / "classes.json", table)
    read = pd.read_json(tmp_path / "classes.json", orient="split")
    assert list(read["finetune"].fillna(-1)) == [1, 0, -1]


def test_without_a_mistake_the_table_is_empty(data):
    right = answers(data.labels("test"), {})
    assert mistakes_table(data, right, right).empty
