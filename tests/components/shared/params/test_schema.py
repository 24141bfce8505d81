"""Parameters: what a step may read, how they are digested, and how a wrong one is refused."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import yaml

from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.params.schema import (
    SECTIONS,
    load_params,
    params_digest,
    select,
    to_plain,
    validate_params,
)
from components.shared.steps import STEPS
from models import encoders
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
    restricted = select(PARAMS, step)
    values = to_plain(restricted)
    declared = {}
    for key in STEPS[step].parameters:
        section, _, field = key.partition(".")
        if field:
            declared.setdefault(section, {})[field] = to_plain(PARAMS)[section][field]
        else:
            declared[section] = to_plain(PARAMS)[section]
    assert values == declared


def test_reading_an_undeclared_section_raises():
    with pytest.raises(AttributeError):
        _ = select(PARAMS, "ingest").gate


def test_reading_an_undeclared_field_of_a_declared_section_raises_too():
    runtime = select(PARAMS, "search").runtime
    assert runtime.precision == "float32"
    with pytest.raises(AttributeError):
        _ = runtime.epochs
    with pytest.raises(AttributeError):
        _ = runtime.batch_size


def test_values_cannot_be_changed_while_they_are_read():
    for params in (PARAMS, select(PARAMS, "pretrain")):
        with pytest.raises(ValueError, match="frozen"):
            params.runtime.epochs = 3
        with pytest.raises(AttributeError):
            params.method.temperature = 3
        with pytest.raises(AttributeError):
            params.runtime = None


def test_the_digest_of_a_step_follows_what_it_reads_only():
    other = validate_params(changed("gate.min_gain", 0.05))
    assert params_digest(select(other, "evaluate")) != params_digest(select(PARAMS, "evaluate"))
    assert params_digest(select(other, "pretrain")) == params_digest(select(PARAMS, "pretrain"))


def test_the_digest_does_not_depend_on_the_order_of_the_file():
    reordered = {name: dict(reversed(section.items())) for name, section in reversed(VALUES.items())}
    assert params_digest(validate_params(reordered)) == params_digest(PARAMS)


def test_a_parameter_left_out_is_missing_for_defaults_stand_in_conf():
    values = copy.deepcopy(VALUES)
    del values["data"]["seed"]
    with pytest.raises(UserError, match=r"^data\.seed: missing; see conf/"):
        validate_params(values)


def test_a_step_checks_its_own_sections_and_the_names_of_the_others(tmp_path):
    path = write(tmp_path, yaml.safe_dump(changed("method.temperature", 0)))
    assert load_params(path, "validate").validation.min_images_per_class == 2
    with pytest.raises(UserError, match=r"method\.temperature"):
        load_params(path, "pretrain")
    path = write(tmp_path, yaml.safe_dump({**VALUES, "gates": {}}))
    with pytest.raises(UserError, match="gates: no such parameter"):
        load_params(path, "validate")


REFUSED = [
    ("method.temperature", 0, "method.temperature = 0: must be greater than 0"),
    ("method.temperature", "warm", 'method.temperature = "warm": must be a valid number'),
    ("method.temperature", math.nan, "method.temperature = NaN: must be a finite number"),
    ("method.temperature", math.inf, "method.temperature = Infinity: must be a finite number"),
    ("runtime.epochs", True, "runtime.epochs = true: must be a valid integer"),
    ("runtime.epochs", 1.5, "runtime.epochs = 1.5: must be a valid integer"),
    ("runtime.epochs", "20", 'runtime.epochs = "20": must be a valid integer'),
    ("runtime.epochs", None, "runtime.epochs = null: must be a valid integer"),
    ("runtime.epochs", -1, "runtime.epochs = -1: must be greater than or equal to 0"),
    ("runtime.batch_size", 1, "runtime.batch_size = 1: must be greater than or equal to 2"),
    ("data.image_size", 7, "data.image_size = 7: must be greater than or equal to 8"),
    ("data.labels_per_class", 0, "data.labels_per_class = 0: must be greater than or equal to 1"),
    ("data.split.test", 1, "data.split.test = 1: must be less than 1"),
    ("data.path", "", 'data.path = "": must have at least 1 character'),
    ("gate.min_accuracy", 50, "gate.min_accuracy = 50: must be less than or equal to 1"),
    ("probe.l2", [], "probe.l2 = []: must have at least 1 item, not 0"),
    *(
        (
            "probe.label_budgets",
            budgets,
            f"probe.label_budgets = {budgets}: must be whole numbers ≥ 1 of labels per "
            "class, or fractions between 0 and 1 of the labels there are",
        )
        for budgets in ([1, 0], [0.1, 1.5])
    ),
    (
        "probe.solver",
        "mini",
        "probe.solver = \"mini\": must be 'full_batch' or 'minibatch' (did you mean minibatch?)",
    ),
    ("probe.minibatch.milestones", [0.0], "probe.minibatch.milestones = [0.0]: must be numbers > 0 and ≤ 1"),
    ("probe.minibatch.epochs", 0, "probe.minibatch.epochs = 0: must be greater than or equal to 1"),
    ("supervised.optimizer", "sgd", "supervised.optimizer = \"sgd\": must be 'adam' or 'adamw'"),
    ("supervised.optimizer", "adam", "supervised.weight_decay = 0.05: adam has none; set it to 0 or take adamw"),
    (
        "supervised.schedule",
        "step",
        "supervised.schedule = \"step\": must be 'constant', 'cosine' or 'steps' (did you mean steps?)",
    ),
    ("supervised.milestones", [0.7, 0], "supervised.milestones = [0.7, 0.0]: must be numbers > 0 and ≤ 1"),
    ("supervised.head.hidden", -1, "supervised.head.hidden = -1: must be greater than or equal to 0"),
    ("supervised.head.dropout", 1, "supervised.head.dropout = 1: must be less than 1"),
    ("supervised.freeze_encoder", "no", 'supervised.freeze_encoder = "no": must be a valid boolean'),
    (
        "supervised.projection_layers",
        2,
        "supervised.projection_layers = 2: must be ≤ 1, the projection head's hidden layers "
        "(method.projection.layers = 2)",
    ),
    ("supervised.weak.flip", 1, "supervised.weak.flip = 1: must be a valid boolean"),
    ("method.augmentation.size", 8, "method.augmentation.size = 8: must be greater than or equal to 16"),
    (
        "method.augmentation.crop_area",
        [0.2, 1, 1],
        "method.augmentation.crop_area = [0.2, 1, 1]: must have at most 2 items, not 3",
    ),
    (
        "method.augmentation.crop_area",
        [0.2, 2],
        "method.augmentation.crop_area = [0.2, 2.0]: must be two numbers > 0 and ≤ 1, the smaller one first",
    ),
    (
        "method.augmentation.crop_area",
        [0.9, 0.2],
        "method.augmentation.crop_area = [0.9, 0.2]: must be two numbers > 0 and ≤ 1, the smaller one first",
    ),
    (
        "method.augmentation.blur_kernel",
        8,
        "method.augmentation.blur_kernel = 8: must be odd, to have a pixel in its middle",
    ),
    (
        "method.augmentation.blur_kernel",
        1,
        "method.augmentation.blur_kernel = 1: must be greater than or equal to 3",
    ),
    (
        "method.augmentation.crop",
        "zoomed",
        "method.augmentation.crop = \"zoomed\": must be 'resized' or 'translated'",
    ),
    ("method.augmentation.rotation", 0.6, "method.augmentation.rotation = 0.6: must be less than or equal to 0.5"),
    (
        "encoder.normalization",
        None,
        "encoder.normalization = null: must be 'none', 'symmetric' or 'statistics' (did you mean none?)",
    ),
    (
        "encoder.name",
        "resnet19",
        f'encoder.name = "resnet19": must be one of {", ".join(encoders.NAMES)} (did you mean resnet18?)',
    ),
    (
        "runtime.epoch",
        3,
        "runtime.epoch: no such parameter (did you mean runtime.epochs?); see conf/ for the names",
    ),
    ("gates", {}, "gates: no such parameter (did you mean gate?); see conf/ for the names"),
    ("gate", None, "gate = null: must be an object"),
]


@pytest.mark.parametrize(("name", "value", "message"), REFUSED, ids=[f"{n}={v}"[:50] for n, v, _ in REFUSED])
def test_a_wrong_value_is_refused_in_one_line_with_its_name_and_what_is_allowed(name, value, message):
    with pytest.raises(UserError) as error:
        validate_params(changed(name, value), "params.yaml")
    assert str(error.value) == f"params.yaml: {message}"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "mco"}, 'method.name = "mco": must be one of .* \\(did you mean moco\\?\\)'),
        ({"queue": 3}, "method.name = null: must be one of .*simclr"),
        ("simclr", "method.name = null: must be one of .*simclr"),
    ],
)
def test_a_method_that_there_is_not_is_told_with_those_there_are(method, message):
    with pytest.raises(UserError, match=message):
        validate_params(changed("method", method))


@pytest.mark.parametrize("section", SECTIONS)
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
    with pytest.raises(UserError, match=r"gate\.min_gain = NaN: must be a finite number"):
        load_params(write(tmp_path, text))


@pytest.mark.parametrize(("written", "value"), [("1e-3", 0.001), ("5E-4", 0.0005), ("2", 2.0), (".5", 0.5)])
def test_numbers_may_be_written_with_an_exponent(tmp_path, written, value):
    text = (ROOT / "params.yaml").read_text().replace("temperature: 0.2", f"temperature: {written}", 1)
    assert load_params(write(tmp_path, text), "pretrain").method.temperature == value


@pytest.mark.parametrize("value", [0, 2, 5, "3", None])
def test_images_have_one_three_or_four_channels(value):
    with pytest.raises(UserError, match=r"^data.channels = .*: must be 1, 3 or 4$"):
        validate_params(changed("data.channels", value))


@pytest.mark.parametrize("source", ["cifar10", "stl10"])
def test_what_is_published_in_rgb_is_read_so(source):
    with pytest.raises(UserError) as caught:
        compose_params([f"data={source}", "data.channels=1", "augmentation=any_channels"])
    assert str(caught.value) == (
        f"data.channels = 1: {source} is published in RGB; set 3, or write its images into folders or Parquet and "
        "use data=folder or data=parquet"
    )
    assert compose_params([f"data={source}"])[0].data.channels == 3


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", ["saturation", "hue", "grey_probability", "affine_jitter"])
@pytest.mark.parametrize("group", ["method.augmentation", "supervised.weak"])
def test_changes_of_colour_are_refused_where_images_have_none(channels, name, group):
    options = ["data=folder", f"data.channels={channels}", "augmentation=any_channels", f"{group}.{name}=0.25"]
    with pytest.raises(UserError) as caught:
        compose_params(options)
    assert str(caught.value) == (
        f"{group}.{name} = 0.25: changes the colours of RGB, which these images are not (data.channels = "
        f"{channels}); set it to 0, or, without a preset, all such changes with augmentation=any_channels"
    )
    assert compose_params([*options, "data.channels=3"])[0].data.channels == 3


def test_those_of_a_preset_are_named_too():
    with pytest.raises(UserError, match=r"^method.augmentation.saturation = 0.5: .*\(data.channels = 1\)"):
        compose_params(["preset=simclr-jax", "data=folder", "data.channels=1"])
    off = [f"method.augmentation.{name}=0" for name in ("saturation", "hue", "grey_probability")]
    off += ["supervised.weak.saturation=0"]
    with pytest.raises(UserError, match=r"^supervised.published.augmentation.grey_probability = 0.2: "):
        compose_params(["preset=simclr-jax", "data=folder", "data.channels=1", *off])


@pytest.mark.parametrize("name", ["method.augmentation.size", "supervised.weak.size"])
def test_a_network_for_one_size_is_refused_views_of_another(name):
    with pytest.raises(
        UserError, match=f"^{name} = 24: encoder=conv takes images of one size only; set null"
    ) as told:
        compose_params(["encoder=conv_small", f"{name}=24"])
    assert "\n" not in str(told.value)
    compose_params([f"{name}=24"])


@pytest.mark.parametrize("data", ["sample", "folder", "parquet", "tfds"])
@pytest.mark.parametrize("channels", [1, 4])
def test_one_option_switches_them_off_and_leaves_the_rest(data, channels):
    words = [f"data={data}", "data.name=own"]
    colored, other = (
        compose_params([*words, *more])[0]
        for more in ((), (f"data.channels={channels}", "augmentation=any_channels"))
    )
    assert other.data.channels == channels
    for before, after in (
        (colored.method.augmentation, other.method.augmentation),
        (colored.supervised.weak, other.supervised.weak),
    ):
        off = dict.fromkeys(("saturation", "hue", "grey_probability", "affine_jitter"), 0.0)
        assert after == dataclasses.replace(before, **off)
        # what is left still changes images
        assert after.brightness > 0 and after.contrast > 0 and after.flip


def test_channels_are_handed_to_ingest_alone():
    words = ["data=folder", "augmentation=any_channels"]
    rgb, grey = (compose_params([*words, f"data.channels={channels}"])[0] for channels in (3, 1))
    for step in STEPS:
        same = params_digest(select(grey, step)) == params_digest(select(rgb, step))
        assert same == (step != "ingest")
