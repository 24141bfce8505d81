"""Rows of pictures, and the nearest images among them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from components.shared.artifacts import Dataset
from components.shared.plots.grids import draw_rows, in_page
from components.shared.plots.probe import nearest_rows
from tests.helpers.datasets import make_dataset


def image(value, dtype=np.uint8):
    return np.full((4, 5, 3), value, dtype)


def names(figure):
    """Those of the rows, and of the columns."""
    axis = figure.axes[0]
    return tuple(
        [label.get_text() for label in labels] for labels in (axis.get_yticklabels(), axis.get_xticklabels())
    )


def test_names_and_titles_are_drawn_as_written():
    name = "US$_and_$2"
    figure = draw_rows([(name, [image(9)])], titles=[name])
    figure.savefig(io.BytesIO())
    assert names(figure) == ([name], [name])


def test_rows_may_differ_in_length_and_have_names_and_titles():
    rows = [("original", [image(9), image(200)]), ("a very long name of a class indeed", [image(0.5, float)])]
    figure = draw_rows(rows, titles=["first", "second", "third"])
    # there is no third column to name
    assert names(figure) == (["original", "a very long name of a cl"], ["first", "second"])
    drawn = figure.axes[0].images
    # in its row and column
    assert [(int(left), int(top)) for left, _, _, top in (one.get_extent() for one in drawn)] == [
        (0, 0),
        (1, 0),
        (0, 1),
    ]
    np.testing.assert_array_equal(drawn[1].get_array(), image(200))
    left, right, bottom, top = drawn[0].get_extent()
    assert (bottom - top) / (right - left) == pytest.approx(4 / 5)


def test_rows_lie_from_the_top_and_no_image_is_mirrored():
    """Seen in the picture itself."""
    half = np.zeros((8, 8, 3), np.uint8)
    half[:4], half[:4, :4] = (255, 0, 0), (0, 0, 255)
    figure = draw_rows([("", [half]), ("", [image(0)])])
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    places = {
        name: np.argwhere((pixels == colour).all(axis=2)).mean(axis=0)
        for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0)))
    }
    black = np.argwhere((pixels == 0).all(axis=2)).mean(axis=0)
    assert abs(places["blue"][0] - places["red"][0]) < 1 and places["blue"][1] < places["red"][1]
    assert places["red"][0] < black[0]


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_grey_is_drawn_grey_and_of_four_channels_the_first_three(scale):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5, 1)
    four = np.dstack([image(9), image(0)[..., :1]])
    figure = draw_rows([("grey", [grey * scale]), ("four", [four * scale])])
    drawn = [one.get_array() for one in figure.axes[0].images]
    np.testing.assert_allclose(drawn[0], np.repeat(grey, 3, axis=2) * scale)
    # not transparent, as it would be if the fourth were alpha
    np.testing.assert_allclose(drawn[1], image(9) * scale)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "dataset"
    return Dataset(make_dataset(folder, unlabelled=2, train=3, validation=3, test=9, image_size=8))


def test_a_name_is_shown_as_it_is_written():
    """Matplotlib takes text between dollars for mathematics, and stops at what is none."""
    figure = draw_rows([("$\\frac{$", [image(9)])])
    figure.draw_without_rendering()
    (label,) = figure.axes[0].get_yticklabels()
    assert (label.get_text(), label.get_parse_math()) == ("$\\frac{$", False)


def test_each_class_shows_an_image_and_its_nearest_others(data):
    features = np.random.default_rng(0).standard_normal((9, 4)).astype("float32")
    labels, images = data.labels("test"), data.images("test")
    rows = nearest_rows(data, "test", features, neighbours=3)
    assert [name for name, _ in rows] == data.manifest.class_names
    for label, (_, shown) in enumerate(rows):
        query = int(np.flatnonzero(labels == label)[0])
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        cosines = {other: unit[query] @ unit[other] for other in range(9) if other != query}
        expected = [query, *sorted(cosines, key=cosines.__getitem__, reverse=True)[:3]]
        assert len(shown) == 4
        for found, index in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(found, images[index])


def test_dead_features_and_few_images_still_give_rows(data):
    rows = nearest_rows(data, "test", np.zeros((9, 4), "float32"), queries=2, neighbours=20)
    assert [len(shown) for _, shown in rows] == [9, 9]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_of_any_channels_is_held_by_a_page_at_most_so_large(channels):
    kind, _, content = in_page(np.full((40, 80, channels), 200, np.uint8), 20).partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(io.BytesIO(base64.b64decode(content))) as shown:
        assert shown.size == (20, 10)
        assert shown.convert("RGB").getpixel((5, 5)) == pytest.approx((200,) * 3, abs=2)
