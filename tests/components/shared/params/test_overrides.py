"""From a run's values back to the overrides it was composed from: composing these gives exactly the values."""

from __future__ import annotations

import pytest
import yaml

from components.shared.params.composing import compose_params, write_params
from components.shared.params.overrides import overrides_of
from components.shared.params.schema import read_params

# overrides → what is found for them, in the order of the values in params.yaml
ASKED = {
    "nothing": ((), []),
    "the defaults, said": (("method=simclr", "runtime.epochs=18"), []),
    "one value": (("method.temperature=0.3",), ["method.temperature=0.3"]),
    "a method with defaults of its own": (("method=byol",), ["method=byol"]),
    "options and values": (
        ("method=byol", "encoder=resnet18", "runtime=gpu", "runtime.epochs=7", "method.momentum.start=0.95"),
        ["method=byol", "encoder=resnet18", "runtime=gpu", "method.momentum.start=0.95", "runtime.epochs=7"],
    ),
    "one of two encoders of the same name": (("encoder=conv_small",), ["encoder=conv_small"]),
    "images of one's own": (
        ("data=folder", "data.path=own/photos of mine.zip", "data.channels=1", "augmentation=any_channels"),
        ["data=folder", "augmentation=any_channels", "data.path='own/photos of mine.zip'", "data.channels=1"],
    ),
    "a set that its user names": (("data=tfds", "data.name=cifar100"), ["data=tfds", "data.name=cifar100"]),
    "what follows from another value": (("data.name=moths",), ["data.name=moths"]),
    "and what does not": (
        ("data.name=moths", "registry.model_name=night"),
        ["data.name=moths", "registry.model_name=night"],
    ),
    "a preset, changed": (
        ("preset=supcon-keras", "data=stl10", "supervised.published.epochs=3", "gate.open_test=false"),
        ["data=stl10", "preset=supcon-keras", "supervised.published.epochs=3", "gate.open_test=false"],
    ),
    "no recipe of a preset": (
        ("preset=simclr-keras", "supervised.published=null"),
        ["preset=simclr-keras", "supervised.published=null"],
    ),
    "values of every kind": (
        (
            "runtime.replicates=[7,8,9]",
            "runtime.devices=2",
            "monitor.min_spread=1e-05",
            "gate=strict",
            "gate.skip_champions=[3]",
            "registry.production_model=best",
            "data=folder",
            "data.digest='" + "0" * 64 + "'",
            "encoder.weights='a b=c'",
            "probe.class_weight=balanced",
            "validation.expectations.no_blank_images=null",
        ),
        None,
    ),
    "an expectation of one's own": (
        (
            "+validation.expectations.wide={type: expect_column_values_to_be_between, table: images, "
            "column: width, splits: [train, test], min_value: 64, severity: warning, meaning: 'No 1:1 crops.'}",
        ),
        None,
    ),
}


@pytest.mark.parametrize(("overrides", "found"), ASKED.values(), ids=ASKED)
def test_composing_what_is_found_gives_the_same_values(overrides, found, tmp_path):
    _, values = compose_params(overrides)
    write_params(values, tmp_path / "params.yaml")
    again = overrides_of(read_params(tmp_path / "params.yaml"))
    assert again is not None
    assert compose_params(again)[1] == values
    if found is not None:
        assert again == found


def test_values_that_no_overrides_make_are_told(tmp_path):
    values = compose_params()[1]
    del values["validation"]["expectations"]["no_blank_images"]
    assert overrides_of(values) is None
    assert overrides_of({**compose_params()[1], "method": 3}) is None
    assert overrides_of(yaml.safe_load("{}")) is None
