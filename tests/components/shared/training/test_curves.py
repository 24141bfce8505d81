"""Curves as they are read back and drawn."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.plots.evaluation import draw_curves
from components.shared.training.curves import read_curve, with_search

REPLICATES = "epoch,loss,accuracy\n2,1.0,0.5\n4,0.5,0.8\n2,2.0,0.6\n4,0.7,0.9\n"
SEARCH = "epoch,validation_loss,validation_accuracy\n2,2.5,0.3\n4,1.5,0.4\n"


@pytest.fixture
def curve(tmp_path):
    def read(model, text):
        (tmp_path / model).write_text(text)
        return read_curve(model, tmp_path / model)

    return read


def test_trainings_on_all_labels_show_what_the_search_held_out(curve, tmp_path):
    (tmp_path / "search.csv").write_text(SEARCH)
    shown = with_search(curve("baseline", REPLICATES), tmp_path / "search.csv")
    assert shown.searched
    assert (shown.measure_to_draw(), shown.measure_to_draw("loss")) == ("validation_accuracy", "validation_loss")
    np.testing.assert_allclose(shown.means["validation_loss"], [2.5, 1.5])
    # of the replicates there is still what they did in training
    np.testing.assert_allclose(shown.means["loss"], [1.5, 0.6])
    np.testing.assert_allclose(shown.highs["accuracy"], [0.6, 0.9])
    axes = draw_curves([shown], "loss").axes[0]
    assert axes.get_ylabel() == "cross-entropy held out in the search (nats)"
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [2.5, 1.5])


def test_trainings_with_a_validation_of_their_own_show_that(curve, tmp_path):
    (tmp_path / "search.csv").write_text(SEARCH)
    own = curve("finetune", "epoch,loss,validation_accuracy\n4,1,0.7\n")
    assert with_search(own, tmp_path / "search.csv") is own


@pytest.mark.parametrize("text", [None, "", "nothing\n1\n"])
def test_without_a_curve_of_the_search_the_training_is_shown(curve, tmp_path, text):
    if text is not None:
        (tmp_path / "search.csv").write_text(text)
    own = curve("baseline", REPLICATES)
    assert with_search(own, tmp_path / "search.csv") is own
    assert draw_curves([own], "loss").axes[0].get_ylabel() == "cross-entropy on training batches (nats)"
