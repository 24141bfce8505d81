"""Rotation, translated crops, colour affine and the cut blur: against Keras's layers, Pillow and plain NumPy."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models import augmentation as aug
from tests.helpers.augmentation_checks import (
    NOTHING,
    apart,
    array,
    floats,
    raw_images,
    slow_crop,
    slow_sample,
    uniform_on,
)
from tests.helpers.options import augmentation

# as in the Keras SimCLR example's strong augmentation, with the rotation of the SupCon example
RECIPE = augmentation(
    crop="translated",
    crop_area=(0.25, 1.0),
    rotation=0.02,
    affine_brightness=0.6,
    affine_jitter=0.2,
    blur_probability=0.5,
    blur_kernel=9,
)


def each(value, count=3):
    return np.full(count, value, "float32")


def reflected(position, size):
    """An index beyond the border, counted back from the border, whose pixel comes twice."""
    position %= 2 * size
    return position if position < size else 2 * size - 1 - position


def slow_rotation(image, turns):
    """Anticlockwise as seen, with the rows growing downwards; beyond the border the image is mirrored."""
    height, width = image.shape[:2]
    ring = [[reflected(i, n) for i in range(-2 * n, 3 * n)] for n in (height, width)]
    wide = image[np.ix_(*ring)]
    cosine, sine = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    out = np.empty(image.shape)
    for i in range(height):
        for j in range(width):
            up, right = (height - 1) / 2 - i, j - (width - 1) / 2
            # the place that comes to lie here when it is turned: this one, turned back
            source_up, source_right = cosine * up - sine * right, sine * up + cosine * right
            row, column = (height - 1) / 2 - source_up, (width - 1) / 2 + source_right
            out[i, j] = slow_sample(wide, row + 2 * height, column + 2 * width)
    return out


@pytest.mark.parametrize("turns", [-0.5, -0.02, 0.0, 0.013, 0.2, 0.25])
def test_rotation_equals_a_slow_loop_and_kerass_layer(turns):
    images = floats(3)
    found = np.asarray(aug.rotate(images, each(turns)))
    for image, rotated in zip(images, found, strict=True):
        assert apart(rotated, slow_rotation(image.astype(float), turns)) < 1e-4
    assert apart(found, np.asarray(keras.layers.RandomRotation((turns, turns))(images, training=True))) < 1e-4


def test_rotation_equals_pillows_inside_the_image():
    images, turns = floats(2, 21, 21), array(0.02, -0.1)
    found = np.asarray(aug.rotate(images, turns))
    for image, turn, rotated in zip(images, turns, found, strict=True):
        for channel in range(3):
            plane = Image.fromarray(image[..., channel]).rotate(360 * turn, Image.Resampling.BILINEAR)
            assert apart(rotated[5:-5, 5:-5, channel], np.asarray(plane)[5:-5, 5:-5]) < 1e-4


def test_quarter_turns_are_numpys_and_no_turn_changes_nothing():
    images = floats(3, 9, 9)
    found = np.asarray(aug.rotate(images, array(0.25, 0.0, -0.5)))
    assert apart(found[0], np.rot90(images[0])) < 1e-5
    assert apart(found[1], images[1]) < 1e-6
    assert apart(found[2], np.rot90(images[2], 2)) < 1e-5


# height, width, down, right: none, zoom alone, shift alone by whole and by broken pixels, all, the extremes
MOVES = [
    (1.0, 1.0, 0.0, 0.0),
    (0.7, 0.85, 0.0, 0.0),
    (1.0, 1.0, 2 / 7, -0.3),
    (1.0, 1.0, 0.11, -0.07),
    (0.6, 0.9, -0.17, 0.04),
    (0.5, 0.5, 0.25, -0.25),
]


@pytest.mark.parametrize(("height", "width", "down", "right"), MOVES)
def test_a_translated_crop_equals_kerass_translation_and_zoom(height, width, down, right):
    images = floats(3)
    found = aug.translate_and_zoom(images, each(down), each(right), each(height), each(width))
    translate = keras.layers.RandomTranslation((down, down), (right, right))
    zoom = keras.layers.RandomZoom((height - 1, height - 1), (width - 1, width - 1))
    assert apart(found, np.asarray(zoom(translate(images, training=True), training=True))) < 1e-4


def test_a_translated_crop_equals_a_slow_crop_of_the_padded_image():
    images, down, right = floats(1, 8, 10), 3, -2
    height, width = 0.55, 0.8
    found = aug.translate_and_zoom(images, each(down / 8, 1), each(right / 10, 1), array(height), array(width))
    padded = np.pad(images[0].astype(float), ((8, 8), (10, 10), (0, 0)), mode="symmetric")
    shifted = padded[8 - down : 16 - down, 10 - right : 20 - right]
    assert apart(found[0], slow_crop(shifted, (1 - height) / 2, (1 - width) / 2, height, width)) < 1e-5


def test_a_translated_crop_is_mirrored_where_it_is_drawn():
    images, moves = floats(3), [each(value) for value in (0.1, -0.2, 0.7, 0.6)]
    plain = np.asarray(aug.translate_and_zoom(images, *moves))
    mirrored = np.asarray(aug.translate_and_zoom(images, *moves, array(0, 1, 0)))
    assert apart(mirrored[1], plain[1, :, ::-1]) < 1e-5
    assert apart(mirrored[[0, 2]], plain[[0, 2]]) < 1e-6


def test_the_colour_affine_multiplies_pixels_as_rows_and_clips():
    images, rng = floats(4), np.random.default_rng(1)
    scale = rng.uniform(0.4, 1.6, 4).astype("float32")
    jitter = rng.uniform(-0.4, 0.4, (4, 3, 3)).astype("float32")
    found = np.asarray(aug.mix_colors(images, scale, jitter))
    clipped = 0
    for image, factor, matrix, mixed in zip(images.astype(float), scale, jitter, found, strict=True):
        for i, j in np.ndindex(image.shape[:2]):
            red, green, blue = image[i, j]
            rows = matrix + factor * np.eye(3)
            expected = red * rows[0] + green * rows[1] + blue * rows[2]
            clipped += int((expected > 1).any() or (expected < 0).any())
            assert apart(mixed[i, j], expected.clip(0, 1)) < 1e-5
    assert 0 < clipped < images[..., 0].size
    assert apart(aug.mix_colors(images, each(1.0, 4), 0 * jitter), images) < 1e-6


@pytest.mark.parametrize("kernel", [3, 5, 9])
def test_the_cut_blur_weighs_no_pixel_beyond_its_kernel(kernel):
    images, sigmas = floats(3, 8, 12), array(0.1, 0.8, 5.0)
    found = np.asarray(aug.gaussian_blur(images, sigmas, kernel))
    reach = kernel // 2
    for image, sigma, blurred in zip(images.astype(float), sigmas.astype(float), found, strict=True):
        for i, j in np.ndindex(image.shape[:2]):
            rows = np.arange(max(0, i - reach), min(8, i + reach + 1))
            columns = np.arange(max(0, j - reach), min(12, j + reach + 1))
            squares = (rows[:, None] - i) ** 2 + (columns[None] - j) ** 2
            weights = np.exp(-squares / (2 * sigma**2))
            near = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert apart(blurred[i, j], (near * weights[..., None]).sum((0, 1)) / weights.sum()) < 1e-5


def test_a_kernel_as_wide_as_the_image_cuts_nothing():
    images, sigmas = floats(2, 7, 7), array(1.0, 4.0)
    np.testing.assert_array_equal(aug.gaussian_blur(images, sigmas, 13), aug.gaussian_blur(images, sigmas))
    assert apart(aug.gaussian_blur(images, sigmas, 3), aug.gaussian_blur(images, sigmas)) > 0.01


@pytest.fixture(scope="module")
def drawn():
    draws = aug.draw(20_000, RECIPE, keras.random.SeedGenerator(0))
    return {name: np.asarray(values, float) for name, values in draws.items()}


def test_translated_crops_have_the_stated_sizes_and_shifts(drawn):
    # the example's zoom factor of the area 1/4 is 1 − √(1/4) = 1/2
    for name in ("height", "width"):
        assert uniform_on(drawn[name], 0.5, 1.0), name
    for name in ("down", "right"):
        assert uniform_on(drawn[name], -0.25, 0.25), name
    part = aug.draw(20_000, replace(RECIPE, crop_area=(0.25, 0.64)), keras.random.SeedGenerator(0))
    assert uniform_on(np.asarray(part["height"], float), 0.5, 0.8)
    assert uniform_on(np.asarray(part["down"], float), -0.25, 0.25)


def test_rotation_and_colour_affine_are_uniform_on_the_stated_ranges(drawn):
    assert uniform_on(drawn["rotation"], -0.02, 0.02)
    assert uniform_on(drawn["affine_scale"], 0.4, 1.6)
    assert drawn["affine_jitter"].shape == (20_000, 3, 3)
    for i, j in np.ndindex(3, 3):
        assert uniform_on(drawn["affine_jitter"][:, i, j], -0.2, 0.2)


def test_new_numbers_are_drawn_independently(drawn):
    names = ["height", "width", "down", "right", "mirror", "rotation", "affine_scale"]
    rows = [*(drawn[name] for name in names), *drawn["affine_jitter"].reshape(-1, 9).T]
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 5 / math.sqrt(20_000)


def test_what_is_switched_on_leaves_the_other_numbers_as_they_were():
    before = augmentation(brightness=0.4, hue=0.1, grey_probability=0.2, blur_probability=0.5)
    after = replace(before, blur_kernel=9, rotation=0.1, affine_brightness=0.5, affine_jitter=0.1)
    old, new = (aug.draw(50, policy, keras.random.SeedGenerator(4)) for policy in (before, after))
    assert set(new) - set(old) == {"rotation", "affine_scale", "affine_jitter"}
    for name, values in old.items():
        np.testing.assert_array_equal(values, new[name])


def test_a_saved_seed_goes_on_giving_the_same_numbers():
    policy = augmentation(brightness=0.4, hue=0.1, grey_probability=0.2, blur_probability=0.5)
    draws = aug.draw(9, policy, keras.random.SeedGenerator(4))
    seed = keras.random.SeedGenerator(4)

    def uniform(low, high):
        return keras.random.uniform((9,), low, high, seed=seed)

    area, ratio = uniform(0.2, 1.0), np.exp(uniform(math.log(3 / 4), math.log(4 / 3)))
    height = np.minimum(np.sqrt(area / ratio), 1)
    width = np.minimum(np.sqrt(area * ratio), 1)
    expected = {"height": height, "width": width, "top": uniform(0, 1) * (1 - height)}
    expected["left"] = uniform(0, 1) * (1 - width)
    expected |= {"mirror": uniform(0, 1) < 0.5, "jitter": uniform(0, 1) < 0.8}
    expected |= {"brightness": uniform(0.6, 1.4), "contrast": uniform(1, 1), "saturation": uniform(1, 1)}
    expected |= {"hue": uniform(-0.1, 0.1), "grey": uniform(0, 1) < 0.2, "blur": uniform(0, 1) < 0.5}
    expected["sigma"] = uniform(0.1, 2.0)
    assert list(draws) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(draws[name], np.asarray(values, "float32"), atol=1e-6, err_msg=name)


@pytest.mark.parametrize("policy", [RECIPE, replace(NOTHING, rotation=0.1), replace(NOTHING, affine_jitter=0.3)])
def test_each_image_is_changed_on_its_own(policy):
    same = np.repeat(raw_images(1), 12, axis=0)
    found = np.asarray(aug.augment(same, policy, keras.random.SeedGenerator(0)))
    assert min(apart(found[i], found[j]) for i in range(12) for j in range(i)) > 0.005
    images, draws = aug.scale(raw_images()), aug.draw(6, policy, keras.random.SeedGenerator(3))
    whole = np.asarray(aug.apply(images, policy, draws))
    for i in range(6):
        alone = aug.apply(images[i : i + 1], policy, {name: values[i : i + 1] for name, values in draws.items()})
        assert apart(alone, whole[i : i + 1]) < 1e-5


def test_the_order_is_crop_rotation_colours_blur():
    images = floats(2, 12, 12)
    draws = aug.draw(2, RECIPE, keras.random.SeedGenerator(1)) | {"blur": array(1, 1)}
    expected = aug.translate_and_zoom(
        images, *(draws[name] for name in ("down", "right", "height", "width", "mirror"))
    )
    expected = aug.mix_colors(
        aug.rotate(expected, draws["rotation"]), draws["affine_scale"], draws["affine_jitter"]
    )
    expected = aug.gaussian_blur(expected, draws["sigma"], 9)
    assert apart(aug.apply(images, RECIPE, draws), expected) < 1e-6


POLICIES = st.builds(
    augmentation,
    crop=st.just("translated"),
    crop_area=st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1.0)),
    flip=st.booleans(),
    rotation=st.floats(0, 0.5),
    affine_brightness=st.floats(0, 1),
    affine_jitter=st.floats(0, 1),
    blur_probability=st.floats(0, 1),
    blur_kernel=st.sampled_from([None, 3, 9, 31]),
)


@settings(max_examples=15, deadline=None)
@given(POLICIES, st.integers(0, 1000), st.sampled_from([0, 255, None]))
def test_the_result_is_in_range_and_decided_by_the_seed(policy, seed, level):
    raw = raw_images(4, seed=seed) if level is None else np.full((4, 12, 12, 3), level, np.uint8)
    first, second = (np.asarray(aug.augment(raw, policy, keras.random.SeedGenerator(seed))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == raw.shape
    assert first.dtype == np.float32
    assert first.min() >= -1e-6
    assert first.max() <= 1 + 1e-5


class Augmenter(keras.layers.Layer):
    def __init__(self, draws):
        super().__init__()
        self.draws = draws

    def call(self, images):
        return aug.apply(aug.scale(images), RECIPE, self.draws)


@pytest.mark.parametrize("xla", [False, True])
def test_compiled_steps_give_the_same_pictures_for_the_same_numbers(xla):
    draws = aug.draw(6, RECIPE, keras.random.SeedGenerator(5))
    images = keras.Input((12, 12, 3), dtype="uint8")
    model = keras.Model(images, Augmenter({name: np.asarray(values) for name, values in draws.items()})(images))
    model.compile(jit_compile=xla)
    plain = aug.apply(aug.scale(raw_images()), RECIPE, draws)
    assert apart(model.predict_on_batch(raw_images()), np.asarray(plain)) < 1e-5
