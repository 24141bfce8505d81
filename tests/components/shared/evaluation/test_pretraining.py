"""What the probe's folder keeps of the pretraining."""

from __future__ import annotations

import numpy as np
import pytest

from components.shared.evaluation.pretraining import read_pretraining

HEAD = "epoch,seed,validation_probe_accuracy,contrastive_loss,contrastive_accuracy\n"


def test_mean_and_range_over_seeds_are_read_by_epoch(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text(f"{HEAD}1,0,,4,0.1\n2,0,0.5,3,0.2\n1,1,,5,0.3\n2,1,0.7,inf,0.4\n")
    curve = read_pretraining(path)
    np.testing.assert_allclose(curve.means["contrastive_accuracy"], [0.2, 0.3])
    np.testing.assert_allclose(curve.lows["contrastive_loss"], [4, 3])
    np.testing.assert_allclose(curve.highs["contrastive_loss"], [5, 3])
    np.testing.assert_allclose(curve.means["validation_probe_accuracy"], [np.nan, 0.6])


def test_a_folder_of_before_the_loss_was_kept_gives_the_online_probe(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("epoch,seed,probe_accuracy,validation_probe_accuracy\n1,0,0.2,0.5\n")
    curve = read_pretraining(path)
    assert list(curve.means["validation_probe_accuracy"]) == [0.5]
    assert curve.means["contrastive_loss"].isna().all()


@pytest.mark.parametrize("content", [None, "", HEAD, "a,b\n1,2\n", f"{HEAD}one,0,0,0,0\n"])
def test_what_is_no_such_table_is_left_out(tmp_path, content):
    path = tmp_path / "curves.csv"
    if content is not None:
        path.write_text(content)
    assert read_pretraining(path) is None
