"""Composing a run from options, and what a wrong option answers."""

from __future__ import annotations

import pytest
import yaml

from components.shared.errors import UserError
from components.shared.params.composing import CONF, compose_params, options, write_params
from components.shared.params.schema import load_params, to_plain
from tests.helpers.repository import ROOT


def test_params_yaml_is_what_the_defaults_compose_to(tmp_path):
    write_params(compose_params()[1], tmp_path / "params.yaml")
    assert (ROOT / "params.yaml").read_text() == (tmp_path / "params.yaml").read_text()


def test_what_is_written_is_read_back_alike(tmp_path):
    params, values = compose_params(["method.temperature=0.2", "data.labels_per_class=null"])
    write_params(values, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml") == params
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == values


def every_option():
    # a preset's values belong to many groups; its own tests know them
    return [f"{group}={option}" for group, names in options().items() if group != "preset" for option in names]


@pytest.mark.parametrize("override", every_option())
def test_every_option_composes_to_allowed_values(override):
    # of the sample the encoder fast is narrower, and trains on one core; the name of a set is for its user to say
    besides = {
        "encoder=fast": ["data=parquet"],
        "runtime=laptop": ["data=parquet"],
        "data=tfds": ["data.name=cifar100"],
    }
    params, values = compose_params([*besides.get(override, []), override])
    group, _, option = override.partition("=")
    text = (CONF / group / f"{option}.yaml").read_text()
    # where the file's first line says so, its values go elsewhere
    place = text.splitlines()[0].removeprefix("# @package ") if text.startswith("# @package ") else group
    found, checked = values, to_plain(params)
    for key in place.split(".") if place != "_global_" else ():
        found, checked = found[key], checked[key]
    for name, value in yaml.safe_load(text).items():
        # what it is composed from; what its user says, or what follows from that
        if name == "defaults" or value == "???" or "${" in str(value):
            continue
        assert found[name] == checked[name]
        # of a group, the file says what differs from those
        assert found[name] == over(found[name], value)


def over(values, changes):
    """Values with some replaced, at any depth."""
    if not isinstance(changes, dict):
        return changes
    return {**values, **{name: over(values[name], value) for name, value in changes.items()}}


def test_options_and_values_combine_and_the_later_one_counts():
    params, _ = compose_params(["encoder=resnet18", "runtime=gpu", "runtime.epochs=7", "runtime.epochs=8"])
    assert params.encoder.name == "resnet18"
    assert (params.runtime.epochs, params.runtime.batch_size) == (8, 512)


def test_the_registered_model_is_named_after_the_data():
    assert compose_params(["data.name=moths"])[0].registry.model_name == "contrastive-moths"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["encoder=resnt18"],
            f"encoder=resnt18: must be one of {', '.join(options()['encoder'])} (did you mean resnet18?)",
        ),
        (["encoder="], f"encoder=: must be one of {', '.join(options()['encoder'])}"),
        (["runtime=gpu,laptop"], "runtime=gpu,laptop: must be one of gpu, laptop (did you mean laptop?)"),
        (["dat=sample"], "dat=sample: the chosen options have no parameter dat (did you mean data?); see conf/"),
        (
            ["runtime.epoch=3"],
            "runtime.epoch=3: the chosen options have no parameter runtime.epoch "
            "(did you mean runtime.epochs?); see conf/",
        ),
        (
            ["epochs=3"],
            "epochs=3: the chosen options have no parameter epochs (did you mean supervised.search.epochs or "
            "probe.minibatch.epochs or runtime.epochs?); see conf/",
        ),
        (["+runtime.foo=1"], "runtime.foo: no such parameter; see conf/ for the names"),
        (["runtime.epochs"], "'runtime.epochs': write name=value, such as data=sample or runtime.epochs=20"),
        (["=3"], "'=3': write name=value, such as data=sample or runtime.epochs=20"),
        (
            ["encoder=resnet18", "encoder.width=3"],
            "encoder=resnet18 encoder.width=3: the chosen options have no parameter encoder.width; see conf/",
        ),
        (["runtime.epochs=[1"], "runtime.epochs=[1: no viable alternative at input '[1'"),
        (["registry.model_name=${nope}"], "registry.model_name=${nope}: Interpolation key 'nope' not found"),
        (["method.temperature=0"], "method.temperature = 0: must be greater than 0"),
        (["gate.min_gain=nan"], "gate.min_gain = NaN: must be a finite number"),
        (["runtime.epochs="], 'runtime.epochs = "": must be a valid integer'),
        (["runtime.epochs=true"], "runtime.epochs = true: must be a valid integer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_line_that_names_it(overrides, message):
    with pytest.raises(UserError) as error:
        compose_params(overrides)
    assert str(error.value) == message


def test_a_misspelt_data_option_lists_those_there_are():
    with pytest.raises(UserError, match=r"^data=cifar: must be one of .*sample") as error:
        compose_params(["data=cifar"])
    assert all(option in str(error.value) for option in options()["data"])


def test_a_wrong_default_in_conf_is_told_too(tmp_path):
    (tmp_path / "config.yaml").write_text("defaults:\n  - data: sample\n")
    with pytest.raises(UserError, match="Could not find 'data/sample'"):
        compose_params(conf=tmp_path)


def test_every_source_but_the_sample_is_augmented_as_photographs_are_unless_told():
    hues = {
        name: compose_params([f"data={name}", "data.name=x"])[0].method.augmentation.hue
        for name in options()["data"]
    }
    assert hues.pop("sample") == 0.5
    assert set(hues.values()) == {0.1}
    assert compose_params(["augmentation=photographs"])[0].method.augmentation.hue == 0.1
    assert compose_params(["data=cifar10", "augmentation=any_hue"])[0].method.augmentation.hue == 0.5
