"""The options `class_weight` reach every training with labels, but not one that somebody published."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from components.baseline import baseline
from components.pretrain import pretrain
from components.search import search
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from models.classifier import SupervisedTrainer
from models.probes import fit_linear_probe, fit_minibatch_probe, fit_probe
from tests.helpers.datasets import make_dataset
from tests.helpers.device_steps import write_search

SMALL = ("encoder=fast", "encoder.width=8", "runtime.epochs=0", "supervised.batch_size=12", "runtime.threads=null")


class Stop(Exception):  # noqa: N818
    pass


@pytest.fixture
def told(monkeypatch):
    """What each training is told of class weights; none is made."""
    found, signature = [], inspect.signature(SupervisedTrainer.fit)

    def fit(*args, **kwargs):
        found.append(signature.bind(*args, **kwargs).arguments.get("class_weight"))
        raise Stop

    monkeypatch.setattr(SupervisedTrainer, "fit", fit)
    return found


@pytest.mark.parametrize("rule", ["balanced", None])
def test_search_and_both_sides_train_by_it(tmp_path, tracking_uri, told, rule):
    text = "null" if rule is None else rule
    params = compose_params([*SMALL, f"supervised.class_weight={text}"])[0]
    data = make_dataset(tmp_path / "dataset", name="weights")
    pretrain(data, tmp_path / "encoder", select(params, "pretrain"), 0, tmp_path / "kept")
    with pytest.raises(Stop):
        search(data, tmp_path / "encoder", tmp_path / "search", select(params, "search"), 0)
    write_search(data, tmp_path / "chosen")
    with pytest.raises(Stop):
        baseline(data, tmp_path / "chosen", tmp_path / "baseline", select(params, "baseline"), 0)
    assert told == [rule, rule]


@pytest.mark.parametrize("rule", ["balanced", None])
def test_both_solvers_of_the_probe_follow_it(rule):
    text = "null" if rule is None else rule
    options = compose_params([f"probe.class_weight={text}"])[0].probe
    labels = np.repeat([0, 1], [30, 10])
    features = np.random.default_rng(0).normal(labels[:, None], 1, (40, 3)).astype("float32")
    expected = {
        0.01: fit_linear_probe(features, labels, 2, 0.01, options.steps, 0, rule),
        None: fit_minibatch_probe(features, labels, 2, options.minibatch, 0, rule),
    }
    for l2, probe in expected.items():
        np.testing.assert_array_equal(fit_probe(features, labels, 2, options, l2, 0).kernel, probe.kernel)


def test_another_rule_is_refused():
    with pytest.raises(UserError, match=r'supervised.class_weight = "equal": must'):
        compose_params(["supervised.class_weight=equal"])
