"""Parameters of the methods: each option file builds, and what contradicts itself is refused in one line."""

from __future__ import annotations

import pytest

from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from models.methods import NAMES
from tests.helpers.method_cases import FILES

REFUSED = [
    (
        ["method=byol", "method.prediction.width=64"],
        "method.prediction.width = 64: must equal projection.width = 128, which it predicts",
    ),
    (
        ["method=simsiam", "method.projection.width=32"],
        "method.prediction.width = 128: must equal projection.width = 32, which it predicts",
    ),
    (
        ["method=nnclr", "method.prediction.width=64"],
        "method.prediction.width = 64: must equal projection.width = 128, which it predicts",
    ),
    (
        ["method=moco_v3", "method.prediction.width=64"],
        "method.prediction.width = 64: must equal projection.width = 128, which it predicts",
    ),
    (
        ["method=supcon", "method.views=1"],
        "method.unlabelled = instance: needs 2 views or more; use leave_out with views = 1",
    ),
    (["method=supcon", "method.views=0"], "method.views = 0: must be greater than or equal to 1"),
    (["method=supcon", "method.views=9"], "method.views = 9: must be less than or equal to 8"),
    (["method.views=1"], "method.views = 1: must be greater than or equal to 2"),
    (["method=byol", "method.views=9"], "method.views = 9: must be less than or equal to 8"),
    (["method.views=2.5"], "method.views = 2.5: must be a valid integer"),
    (
        ["method=dino", "method.teacher_temperature=0.2"],
        "method.teacher_temperature = 0.2: must be ≤ temperature = 0.1",
    ),
    (["method=moco", "method.version=4"], "method.version = 4: must be 2 or 3"),
    (
        ["method=simclr", "method.optimizer.name=foo"],
        "method.optimizer.name = \"foo\": must be 'adam', 'adamw', 'sgd' or 'lars'",
    ),
    (
        ["method.optimizer.schedule=steps"],
        "method.optimizer.schedule = \"steps\": must be 'constant' or 'cosine'",
    ),
    (["method.optimizer.momentum=1"], "method.optimizer.momentum = 1: must be less than 1"),
    (["method.optimizer.final_fraction=2"], "method.optimizer.final_fraction = 2: must be less than or equal to 1"),
    (
        ["method=byol", "optimizer=adam", "method.optimizer.weight_decay=0.1"],
        "method.optimizer.weight_decay = 0.1: adam has none; set it to 0 or take adamw",
    ),
    (
        ["method.optimizer.warmup_epochs=11", "runtime.epochs=10"],
        "method.optimizer.warmup_epochs = 11: must be ≤ runtime.epochs = 10, or the learning rate is never reached",
    ),
    (
        ["method=moco_v3", "method.symmetric=false"],
        "method.symmetric = false: both views ask in version 3; set it to true or take version 2",
    ),
    (
        ["method.optimizer.weight_decay=-1"],
        "method.optimizer.weight_decay = -1: must be greater than or equal to 0",
    ),
    (["method=byol", "method.momentum.start=1.5"], "method.momentum.start = 1.5: must be less than or equal to 1"),
    (["method=moco", "method.queue_size=0"], "method.queue_size = 0: must be greater than or equal to 1"),
    (["method=swav", "method.prototypes=1"], "method.prototypes = 1: must be greater than or equal to 2"),
    (["method=swav", "method.epsilon=0"], "method.epsilon = 0: must be greater than 0"),
    (["method=swav", "method.iterations=0"], "method.iterations = 0: must be greater than or equal to 1"),
    (
        ["method=dino", "method.freeze_prototypes=2"],
        "method.freeze_prototypes = 2: must be less than or equal to 1",
    ),
    (["method=vicreg", "method.variance=-1"], "method.variance = -1: must be greater than or equal to 0"),
    (
        ["method=barlow_twins", "method.off_diagonal=-1"],
        "method.off_diagonal = -1: must be greater than or equal to 0",
    ),
    (["method.projection.layers=9"], "method.projection.layers = 9: must be less than or equal to 8"),
    (
        ["method=dcl", "method.learnable_temperature=true", "method.temperature=0.005"],
        "method.temperature = 0.005: must be ≥ 0.01 with learnable_temperature",
    ),
    (["monitor.every=-1"], "monitor.every = -1: must be greater than or equal to 0"),
    (["monitor.min_rank=-1"], "monitor.min_rank = -1: must be greater than or equal to 0"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[" ".join(o) for o, _ in REFUSED])
def test_a_contradiction_is_refused_in_one_line(overrides, message):
    with pytest.raises(UserError) as error:
        compose_params(overrides)
    assert str(error.value) == message


def test_a_parameter_of_another_method_is_refused():
    with pytest.raises(UserError, match=r"no parameter method\.queue_size; see conf/") as error:
        compose_params(["method=simclr", "method.queue_size=12"])
    assert "\n" not in str(error.value)


def test_what_only_looks_like_a_contradiction_is_allowed():
    # version 2 of MoCo predicts nothing, and NNCLR may do without
    assert compose_params(["method=moco", "method.prediction.width=64"])[0].method.prediction.width == 64
    assert compose_params(["method=moco", "method.symmetric=false"])[0].method.symmetric is False
    # no epoch leaves a random encoder
    for epochs in (0, 1):
        assert compose_params([f"runtime.epochs={epochs}"])[0].method.optimizer.warmup_epochs == 1
    assert compose_params(["method.optimizer.name=sgd", "method.optimizer.weight_decay=0.1"])[0].method.optimizer
    assert compose_params(["method=nnclr", "method.prediction=null"])[0].method.prediction is None
    assert compose_params(["method=supcon", "method.views=1", "method.unlabelled=leave_out"])[0].method.views == 1


@pytest.mark.parametrize("file", FILES)
def test_every_method_has_two_views_and_may_have_up_to_eight(file):
    assert compose_params([f"method={file}"])[0].method.views == 2
    assert compose_params([f"method={file}", "method.views=8"])[0].method.views == 8


def test_every_method_has_an_option_file_and_every_file_a_method():
    assert {compose_params([f"method={file}"])[0].method.name for file in FILES} == set(NAMES)
