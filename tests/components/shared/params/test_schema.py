"""Parameters: what a step may read, how they are digested, and how a wrong one is refused."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, ValidationError

from components.shared.errors import UserError
from components.shared.params.explain import explain, parameter_names
from components.shared.params.schema import (
    Params,
    load_params,
    only,
    params_digest,
    plain,
    validate_params,
)
from components.shared.params.types import Section
from components.shared.steps import STEPS
from tests.helpers.repository import ROOT

VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())
PARAMS = validate_params(VALUES)


def changed(name, value):
    """The default values with one of them replaced."""
    values = copy.deepcopy(VALUES)
    *path, last = name.split(".")
    section = values
    for key in path:
        section = section[key]
    section[last] = value
    return values


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_handed_what_it_declares_and_nothing_else(step):
    restricted = only(PARAMS, step)
    values = plain(restricted)
    declared = {}
    for key in STEPS[step].parameters:
        section, _, field = key.partition(".")
        if field:
            declared.setdefault(section, {})[field] = plain(PARAMS)[section][field]
        else:
            declared[section] = plain(PARAMS)[section]
    assert values == declared


def test_reading_an_undeclared_section_raises():
    with pytest.raises(AttributeError):
        _ = only(PARAMS, "validate").gate


def test_reading_an_undeclared_field_of_a_declared_section_raises_even_if_it_has_a_default():
    runtime = only(PARAMS, "probe").runtime
    assert runtime.seed == 0
    with pytest.raises(AttributeError):
        _ = runtime.epochs
    with pytest.raises(AttributeError):
        _ = runtime.batch_size


def test_values_cannot_be_changed_while_they_are_read():
    with pytest.raises(ValueError, match="frozen"):
        PARAMS.runtime.epochs = 3


def test_the_digest_of_a_step_follows_what_it_reads_only():
    other = validate_params(changed("gate.min_gain", 0.05))
    assert params_digest(only(other, "evaluate")) != params_digest(only(PARAMS, "evaluate"))
    assert params_digest(only(other, "pretrain")) == params_digest(only(PARAMS, "pretrain"))


def test_the_digest_does_not_depend_on_the_order_of_the_file():
    reordered = {name: dict(reversed(section.items())) for name, section in reversed(VALUES.items())}
    assert params_digest(validate_params(reordered)) == params_digest(PARAMS)


def test_the_digest_is_the_same_for_a_default_left_out():
    values = copy.deepcopy(VALUES)
    del values["data"]["seed"]
    assert params_digest(validate_params(values)) == params_digest(PARAMS)


REFUSED = [
    ("method.temperature", 0, "method.temperature = 0: must be a number > 0"),
    ("method.temperature", "warm", 'method.temperature = "warm": must be a number > 0'),
    ("method.temperature", math.nan, "method.temperature = NaN: must be a number > 0"),
    ("method.temperature", math.inf, "method.temperature = Infinity: must be a number > 0"),
    ("runtime.epochs", True, "runtime.epochs = true: must be a whole number ≥ 0"),
    ("runtime.epochs", 1.5, "runtime.epochs = 1.5: must be a whole number ≥ 0"),
    ("runtime.epochs", "20", 'runtime.epochs = "20": must be a whole number ≥ 0'),
    ("runtime.epochs", None, "runtime.epochs = null: must be a whole number ≥ 0"),
    ("runtime.epochs", -1, "runtime.epochs = -1: must be a whole number ≥ 0"),
    ("runtime.batch_size", 1, "runtime.batch_size = 1: must be a whole number ≥ 2"),
    ("data.image_size", 7, "data.image_size = 7: must be a whole number from 8 to 512"),
    ("data.labels_per_class", 0, "data.labels_per_class = 0: must be a whole number ≥ 1 or null"),
    ("data.split.test", 1, "data.split.test = 1: must be a number > 0 and < 1"),
    ("data.path", "", 'data.path = "": must be text, not empty'),
    ("gate.min_accuracy", 50, "gate.min_accuracy = 50: must be a number from 0 to 1"),
    ("probe.l2", [], "probe.l2 = []: must be a list, not empty, each a number ≥ 0"),
    ("probe.label_budgets", [1, 0], "probe.label_budgets.1 = 0: must be a whole number ≥ 1"),
    (
        "probe.solver",
        "mini",
        'probe.solver = "mini": must be one of full_batch, minibatch (did you mean minibatch?)',
    ),
    ("probe.minibatch.drops", [1.0], "probe.minibatch.drops.0 = 1.0: must be a number > 0 and < 1"),
    ("probe.minibatch.epochs", 0, "probe.minibatch.epochs = 0: must be a whole number ≥ 1"),
    ("supervised.optimizer", "sgd", 'supervised.optimizer = "sgd": must be one of adam, adamw'),
    ("supervised.optimizer", "adam", "supervised: weight_decay = 0.0001: adam has none; set it to 0 or take adamw"),
    (
        "supervised.schedule",
        "step",
        'supervised.schedule = "step": must be one of constant, cosine, steps (did you mean steps?)',
    ),
    ("supervised.drops", [0.7, 0], "supervised.drops.1 = 0: must be a number > 0 and < 1"),
    ("supervised.head.hidden", -1, "supervised.head.hidden = -1: must be a whole number ≥ 0"),
    ("supervised.head.dropout", 1, "supervised.head.dropout = 1: must be a number ≥ 0 and < 1"),
    ("supervised.freeze_encoder", "no", 'supervised.freeze_encoder = "no": must be true or false'),
    ("supervised.augmentation.flip", 1, "supervised.augmentation.flip = 1: must be true or false"),
    (
        "method.augmentation.crop_area",
        [0.2, 1, 1],
        "method.augmentation.crop_area = [0.2, 1, 1]: must be a list of 2, each a number > 0 and ≤ 1",
    ),
    (
        "method.augmentation.crop_area",
        [0.2, 2],
        "method.augmentation.crop_area.1 = 2: must be a number > 0 and ≤ 1",
    ),
    (
        "method.augmentation.crop_area",
        [0.9, 0.2],
        "method.augmentation: crop_area = [0.9, 0.2]: the first number must not exceed the second",
    ),
    (
        "method.augmentation.blur_kernel",
        8,
        "method.augmentation: blur_kernel = 8: must be odd, to have a pixel in its middle",
    ),
    (
        "method.augmentation.blur_kernel",
        1,
        "method.augmentation.blur_kernel = 1: must be a whole number ≥ 3 or null",
    ),
    (
        "method.augmentation.crop",
        "zoomed",
        'method.augmentation.crop = "zoomed": must be one of resized, translated',
    ),
    ("method.augmentation.rotation", 0.6, "method.augmentation.rotation = 0.6: must be a number from 0 to 0.5"),
    ("encoder.stem", "tiny", 'encoder.stem = "tiny": must be one of auto, small, large'),
    (
        "encoder.normalization",
        None,
        "encoder.normalization = null: must be one of none, symmetric, statistics (did you mean none?)",
    ),
    (
        "encoder.name",
        "resnet19",
        'encoder.name = "resnet19": must be one of conv, resnet18, resnet34, resnet50, resnet50v2 '
        "(did you mean resnet18?)",
    ),
    (
        "runtime.epoch",
        3,
        "runtime.epoch: no such parameter (did you mean runtime.epochs?); see conf/ for the names",
    ),
    ("gates", {}, "gates: no such parameter (did you mean gate?); see conf/ for the names"),
    ("encoder", None, "encoder = null: must be a group of parameters"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED, ids=[f"{n}={v}"[:50] for n, v, _ in REFUSED])
def test_a_wrong_value_is_refused_in_one_line_with_its_name_and_what_is_allowed(name, value, message):
    with pytest.raises(UserError) as error:
        validate_params(changed(name, value), "params.yaml")
    assert str(error.value) == f"params.yaml: {message}"


class First(Section):
    name: Literal["first"]
    weight: Annotated[float, Field(gt=0)] = 1.0


class Second(Section):
    name: Literal["second"]
    queue: Annotated[int, Field(ge=1)] = 10


class Several(Section):
    method: Annotated[First | Second, Field(discriminator="name")]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            {"name": "secnd"},
            'method.name = "secnd": must be one of first, second (did you mean second?)',
        ),
        ({"queue": 3}, "method.name: missing; must be one of first, second"),
        ({"name": "second", "queue": 0}, "method.queue = 0: must be a whole number ≥ 1"),
        (
            {"name": "second", "quee": 3},
            "method.quee: no such parameter (did you mean method.queue?); see conf/ for the names",
        ),
        ("second", 'method = "second": must be a group of parameters'),
    ],
)
def test_where_a_group_has_several_kinds_the_message_names_the_users_keys_only(method, message):
    with pytest.raises(ValidationError) as error:
        Several.model_validate({"method": method})
    assert explain(error.value, Several) == message


def test_the_names_of_all_kinds_are_known():
    assert parameter_names(Several) == ["method", "method.name", "method.weight", "method.queue"]


@pytest.mark.parametrize("section", Params.model_fields)
def test_a_missing_section_is_named(section):
    values = {name: value for name, value in VALUES.items() if name != section}
    with pytest.raises(UserError, match=rf"^params.yaml: {section}: missing; see conf/"):
        validate_params(values, "params.yaml")


def write(folder, text):
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_a_file_that_is_missing_says_how_to_make_it(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: no such file; compose it with"):
        load_params(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_parameter_file(tmp_path):
    with pytest.raises(UserError, match="can't be read: Is a directory"):
        load_params(tmp_path)


@pytest.mark.parametrize("text", ["data: [1,", "a: b: c", "\tdata: 1", "data: &x 1\nx: *y"])
def test_a_file_that_is_not_yaml_names_the_line(tmp_path, text):
    with pytest.raises(UserError, match=r"params\.yaml: not YAML: line \d+: ") as error:
        load_params(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00data")
    with pytest.raises(UserError, match=r"params\.yaml: not YAML: "):
        load_params(path)


@pytest.mark.parametrize("text", ["", "3", "- data", "data"])
def test_a_file_without_sections_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"expected a mapping of sections"):
        load_params(write(tmp_path, text))


def test_nan_in_the_file_is_refused(tmp_path):
    text = (ROOT / "params.yaml").read_text().replace("min_gain: 0.02", "min_gain: .nan")
    with pytest.raises(UserError, match=r"gate\.min_gain = NaN: must be a number from -1 to 1"):
        load_params(write(tmp_path, text))


@pytest.mark.parametrize(("written", "value"), [("1e-3", 0.001), ("5E-4", 0.0005), ("2", 2.0), (".5", 0.5)])
def test_numbers_may_be_written_with_an_exponent(tmp_path, written, value):
    text = (ROOT / "params.yaml").read_text().replace("temperature: 0.1", f"temperature: {written}", 1)
    assert load_params(write(tmp_path, text), "pretrain").method.temperature == value
