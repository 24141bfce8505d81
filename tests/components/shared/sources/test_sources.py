"""Sources are found by the name of their module, and each says whether its images may change."""

from __future__ import annotations

import pytest
import yaml

from components.shared.errors import UserError
from components.shared.params.composing import compose
from components.shared.sources import is_published, source_names
from tests.helpers.repository import ROOT


def test_every_source_has_an_option_and_every_option_a_source():
    options = [yaml.safe_load(path.read_text())["source"] for path in (ROOT / "conf" / "data").glob("*.yaml")]
    assert set(options) == set(source_names())


def test_what_does_not_exist_is_refused_with_the_nearest_name():
    expected = r'^data\.source = "cifar": must be .*stl10.* \(did you mean cifar10\?\)$'
    with pytest.raises(UserError, match=expected):
        compose(["data.source=cifar"])


def test_every_source_says_whether_its_images_may_change():
    published = {name: is_published(name) for name in source_names()}
    assert published["cifar10"] and published["stl10"]
    assert not published["folder"] and not published["parquet"]
