"""Each operation against a plain loop or Pillow, drawn numbers against their ranges, and images on their own."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from PIL import Image, ImageEnhance

from models import augmentation as aug
from models.augmentation import color, spatial
from tests.helpers.augmentation_checks import (
    NOTHING,
    apart,
    array,
    floats,
    raw_images,
    slow_crop,
    uniform_on,
)
from tests.helpers.options import STILL, augmentation

ALL = augmentation(
    brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5, grey_probability=0.2, blur_probability=0.5
)


BOXES = [(0.0, 0.0, 1.0, 1.0), (0.25, 0.1, 0.5, 0.6), (0.9, 0.85, 0.1, 0.15)]


def cropped(images, boxes, mirror=None, size=None):
    columns = (array(*column) for column in zip(*boxes, strict=True))
    return np.asarray(spatial.crop_and_resize(images, *columns, mirror, size))


@pytest.mark.parametrize("size", [None, 6, 13])
def test_crop_and_resize_equals_a_slow_loop(size):
    images = floats(len(BOXES))
    pairs = zip(images, BOXES, strict=True)
    expected = np.stack([slow_crop(image.astype(float), *box, size) for image, box in pairs])
    assert apart(cropped(images, BOXES, size=size), expected) < 1e-5


def test_crop_and_resize_equals_pillow():
    images = floats(len(BOXES), 16, 12)
    found = cropped(images, BOXES)
    for image, (top, left, height, width), crop in zip(images, BOXES, found, strict=True):
        box = (left * 12, top * 16, (left + width) * 12, (top + height) * 16)
        for channel in range(3):
            plane = Image.fromarray(image[..., channel])
            expected = np.asarray(plane.resize((12, 16), Image.Resampling.BILINEAR, box=box))
            assert apart(crop[..., channel], expected) < 1e-4


@pytest.mark.parametrize("crop", ["resized", "translated"])
def test_views_have_the_size_that_the_policy_says_and_show_the_same(crop):
    images = raw_images(6, 32)
    seen = augmentation(crop=crop, crop_area=(0.5, 1.0), size=64)
    draws = aug.draw(6, seen, keras.random.SeedGenerator(3))
    large = np.asarray(aug.apply(aug.scale(images), seen, draws))
    usual = np.asarray(aug.apply(aug.scale(images), replace(seen, size=None), draws))
    assert (large.shape, usual.shape) == ((6, 64, 64, 3), (6, 32, 32, 3))
    # a sample of the smaller one lies in the middle of four of the larger one
    halved = large.reshape(6, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(halved - usual).mean() < 0.2 * usual.std()


def test_the_mirror_flips_left_to_right_and_only_where_it_is_drawn():
    images = floats(3)
    boxes = [BOXES[1]] * 3
    plain, mirrored = cropped(images, boxes), cropped(images, boxes, array(0, 1, 0))
    assert apart(mirrored[1], plain[1, :, ::-1]) < 1e-5
    assert apart(mirrored[[0, 2]], plain[[0, 2]]) < 1e-6
    assert apart(mirrored[1], plain[1]) > 0.1


# Pillow computes in whole grey levels: its mean grey, its grey image and its result are each rounded
GREY_LEVELS = {"brightness": 1.01, "contrast": 2.01, "saturation": 2.01}
ENHANCERS = {
    "brightness": (color.adjust_brightness, ImageEnhance.Brightness),
    "contrast": (color.adjust_contrast, ImageEnhance.Contrast),
    "saturation": (color.adjust_saturation, ImageEnhance.Color),
}


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("factor", [0.0, 0.5, 0.9, 1.0, 1.3, 2.0])
def test_adjustments_equal_pillows(name, factor):
    adjust, enhancer = ENHANCERS[name]
    raw = np.random.default_rng(1).integers(0, 256, (1, 9, 11, 3)).astype(np.uint8)
    found = np.asarray(adjust(aug.scale(raw), array(factor)))[0] * 255
    expected = np.asarray(enhancer(Image.fromarray(raw[0])).enhance(factor), float)
    assert apart(found, expected) <= GREY_LEVELS[name]


def test_adjustments_equal_their_formulas_image_by_image():
    images, factors = floats(4, low=0.3, high=0.7), array(0.6, 0.9, 1.0, 1.4)
    weights = np.array([0.299, 0.587, 0.114])
    for image, factor, bright, contrast, saturated in zip(
        images.astype(float),
        factors.astype(float),
        *(np.asarray(adjust(images, factors)) for adjust, _ in ENHANCERS.values()),
        strict=True,
    ):
        grey = (image @ weights)[..., None]
        assert apart(bright, np.clip(image * factor, 0, 1)) < 1e-5
        assert apart(contrast, np.clip(grey.mean() + factor * (image - grey.mean()), 0, 1)) < 1e-5
        assert apart(saturated, np.clip(grey + factor * (image - grey), 0, 1)) < 1e-5


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_contrast_about_each_channels_mean_equals_its_formula_and_tensorflows(channels):
    images, factors = of_channels(channels, count=2), array(0.6, 1.8)
    found = np.asarray(color.adjust_contrast(images, factors, "channels"))
    for image, factor, contrast in zip(images.astype(float), factors.astype(float), found, strict=True):
        means = np.array([image[..., channel].mean() for channel in range(channels)])
        assert apart(contrast, np.clip(means + factor * (image - means), 0, 1)) < 1e-5
        assert apart(contrast, np.clip(tf.image.adjust_contrast(image.astype("float32"), factor), 0, 1)) < 1e-5


def test_a_policy_decides_what_contrast_is_changed_about():
    grey = augmentation(**STILL, contrast=0.8, jitter_probability=1.0)
    images = of_channels(3, low=0.2, high=0.8)
    draws = aug.draw(len(images), grey, keras.random.SeedGenerator(3))
    for about in ("grey", "channels"):
        found = aug.apply(images, replace(grey, contrast_about=about), draws)
        assert apart(np.asarray(found), np.asarray(color.adjust_contrast(images, draws["contrast"], about))) < 1e-6


def slow_hue(image, turns):
    """Turn the colour differences B − Y and R − Y, in their scale of colour television, about the grey axis."""
    red, green, blue = np.moveaxis(image.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    # the plane of I and Q is this one, turned by 33° and mirrored; hence the sign
    colour = (0.492111 * (blue - luma) + 0.877283j * (red - luma)) * np.exp(-2j * np.pi * turns)
    blue, red = luma + colour.real / 0.492111, luma + colour.imag / 0.877283
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    return np.stack([red, green, blue], axis=-1)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.25, 0.4])
def test_hue_rotation_equals_the_rotation_of_colour_differences(turns):
    images = floats(2, low=0.4, high=0.6)
    found = np.asarray(color.rotate_hue(images, array(turns, -turns)))
    assert apart(found[0], slow_hue(images[0], turns)) < 1e-4
    assert apart(found[1], slow_hue(images[1], -turns)) < 1e-4


def test_hue_rotation_leaves_grey_and_brightness_alone():
    images, turns = floats(3, low=0.4, high=0.6), array(0.13, -0.5, 0.31)
    grey = np.repeat(floats(3)[..., :1], 3, axis=-1)
    assert apart(color.rotate_hue(grey, turns), grey) < 1e-5
    weights = np.array([0.299, 0.587, 0.114])
    rotated = np.asarray(color.rotate_hue(images, turns))
    assert apart(rotated @ weights, images @ weights) < 1e-5
    assert apart(rotated, images) > 0.05


def test_whole_turns_of_the_hue_change_nothing_and_half_turns_undo_each_other():
    images = floats(3, low=0.4, high=0.6)
    assert apart(color.rotate_hue(images, array(1.0, -1.0, 0.0)), images) < 1e-5
    half = array(0.5, -0.5, 0.5)
    assert apart(color.rotate_hue(color.rotate_hue(images, half), half), images) < 1e-5


def slow_blur(image, sigma):
    height, width = image.shape[:2]
    out = np.zeros(image.shape)
    for i in range(height):
        for j in range(width):
            total = 0.0
            for k in range(height):
                for m in range(width):
                    weight = math.exp(-((i - k) ** 2 + (j - m) ** 2) / (2 * sigma**2))
                    out[i, j] += weight * image[k, m]
                    total += weight
            out[i, j] /= total
    return out


def test_blur_equals_a_slow_loop_with_each_images_own_width():
    images, sigmas = floats(3), array(0.1, 0.7, 2.0)
    found = np.asarray(spatial.gaussian_blur(images, sigmas))
    for image, sigma, blurred in zip(images, sigmas, found, strict=True):
        assert apart(blurred, slow_blur(image.astype(float), float(sigma))) < 1e-5
    flat = np.full((1, 6, 6, 3), 0.3, "float32")
    assert apart(spatial.gaussian_blur(flat, array(1.5)), flat) < 1e-6


@pytest.fixture(scope="module")
def drawn():
    """Many draws of a policy whose crops are never cut at the border."""
    policy = replace(ALL, crop_area=(0.1, 0.5), crop_ratio=(0.6, 1.8))
    draws = aug.draw(20_000, policy, keras.random.SeedGenerator(0))
    return policy, {name: np.asarray(values, float) for name, values in draws.items()}


def test_drawn_crops_have_the_stated_areas_ratios_and_places(drawn):
    policy, draws = drawn
    assert uniform_on(draws["height"] * draws["width"], *policy.crop_area)
    assert uniform_on(np.log(draws["width"] / draws["height"]), *np.log(policy.crop_ratio))
    assert uniform_on(draws["top"] / (1 - draws["height"]), 0, 1)
    assert uniform_on(draws["left"] / (1 - draws["width"]), 0, 1)


def test_drawn_factors_are_uniform_on_the_stated_ranges(drawn):
    policy, draws = drawn
    for name in ("brightness", "contrast", "saturation"):
        assert uniform_on(draws[name], 0.6, 1.4), name
    assert uniform_on(draws["hue"], -policy.hue, policy.hue)
    assert uniform_on(draws["sigma"], *policy.blur_sigma)


@pytest.mark.parametrize(("name", "chance"), [("mirror", 0.5), ("jitter", 0.8), ("grey", 0.2), ("blur", 0.5)])
def test_drawn_coins_fall_as_often_as_stated(drawn, name, chance):
    values = drawn[1][name]
    assert set(np.unique(values)) == {0.0, 1.0}
    assert abs(values.mean() - chance) < 5 * math.sqrt(chance * (1 - chance) / len(values))


def test_different_numbers_are_drawn_independently(drawn):
    names = ["height", "mirror", "jitter", "brightness", "contrast", "saturation", "hue", "grey", "blur", "sigma"]
    correlations = np.corrcoef([drawn[1][name] for name in names]) - np.eye(len(names))
    assert np.abs(correlations).max() < 5 / math.sqrt(20_000)


def test_a_crop_never_leaves_the_image():
    policy = augmentation(crop_area=(0.5, 1.0), crop_ratio=(0.2, 5.0))
    draws = aug.draw(5_000, policy, keras.random.SeedGenerator(1))
    for start, extent in (("top", "height"), ("left", "width")):
        low, size = np.asarray(draws[start]), np.asarray(draws[extent])
        assert low.min() >= 0
        assert size.min() > 0
        assert (low + size).max() <= 1 + 1e-6
    assert np.asarray(draws["width"]).max() == 1


def test_what_is_off_is_not_drawn():
    assert set(aug.draw(3, NOTHING, keras.random.SeedGenerator(0))) == {"height", "width", "top", "left"}
    no_jitter = replace(ALL, jitter_probability=0.0)
    assert not no_jitter.jitters
    assert "hue" not in aug.draw(3, no_jitter, keras.random.SeedGenerator(0))


def test_the_empty_policy_returns_the_image():
    raw = raw_images()
    found = aug.augment(raw, NOTHING, keras.random.SeedGenerator(0))
    assert found.dtype == "float32"
    assert apart(found, raw / 255) < 1e-5


def test_each_image_is_changed_on_its_own():
    same = np.repeat(raw_images(1), 16, axis=0)
    found = np.asarray(aug.augment(same, ALL, keras.random.SeedGenerator(0)))
    assert min(apart(found[i], found[j]) for i in range(16) for j in range(i)) > 0.01
    # an image comes out the same whoever its neighbours are
    images = aug.scale(raw_images())
    draws = aug.draw(6, ALL, keras.random.SeedGenerator(3))
    whole = np.asarray(aug.apply(images, ALL, draws))
    for i in range(6):
        alone = aug.apply(images[i : i + 1], ALL, {name: values[i : i + 1] for name, values in draws.items()})
        assert apart(alone, whole[i : i + 1]) < 1e-5


def test_operations_off_by_their_coin_leave_the_image_alone():
    images = floats(2, 8, 8)
    policy = replace(NOTHING, brightness=0.4, grey_probability=0.5, blur_probability=0.5)
    draws = aug.draw(2, policy, keras.random.SeedGenerator(0))
    draws |= {"jitter": array(0, 1), "grey": array(0, 0), "blur": array(0, 0), "sigma": array(2, 2)}
    found = np.asarray(aug.apply(images, policy, draws))
    assert apart(found[0], images[0]) < 1e-5
    assert apart(found[1], np.clip(images[1] * float(draws["brightness"][1]), 0, 1)) < 1e-5
    draws |= {"jitter": array(0, 0), "grey": array(0, 1)}
    found = np.asarray(aug.apply(images, policy, draws))
    assert apart(found[0], images[0]) < 1e-5
    assert apart(found[1], (images[1] @ array(*color.GREY))[..., None]) < 1e-5


POLICIES = st.builds(
    augmentation,
    crop_area=st.tuples(st.floats(0.05, 0.5), st.floats(0.5, 1.0)),
    crop_ratio=st.tuples(st.floats(0.2, 1.0), st.floats(1.0, 5.0)),
    flip=st.booleans(),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 1),
    saturation=st.floats(0, 1),
    hue=st.floats(0, 0.5),
    jitter_probability=st.floats(0, 1),
    grey_probability=st.floats(0, 1),
    blur_probability=st.floats(0, 1),
    blur_sigma=st.tuples(st.floats(0.01, 1.0), st.floats(1.0, 20.0)),
)


@settings(max_examples=15, deadline=None)
@given(POLICIES, st.integers(0, 1000), st.sampled_from(["random", "black", "white"]))
def test_the_result_is_in_range_and_decided_by_the_seed(policy, seed, kind):
    raw = {"random": raw_images(4, seed=seed), "black": np.zeros((4, 12, 12, 3), np.uint8)}
    raw = raw.get(kind, np.full((4, 12, 12, 3), 255, np.uint8))
    first, second = (np.asarray(aug.augment(raw, policy, keras.random.SeedGenerator(seed))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == raw.shape
    assert first.dtype == np.float32
    assert first.min() >= -1e-6
    assert first.max() <= 1 + 1e-5


def test_another_seed_and_the_next_draw_give_other_pictures():
    raw, generator = raw_images(), keras.random.SeedGenerator(0)
    pictures = [np.asarray(aug.augment(raw, ALL, generator)) for _ in range(2)]
    pictures.append(np.asarray(aug.augment(raw, ALL, keras.random.SeedGenerator(1))))
    assert apart(pictures[0], pictures[1]) > 0.1
    assert apart(pictures[0], pictures[2]) > 0.1


class Augmenter(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(5)

    def call(self, images):
        return aug.augment(images, ALL, self.seed_generator)


def test_the_compiled_step_draws_the_same_as_plain_calls():
    images = keras.Input((12, 12, 3), dtype="uint8")
    compiled = keras.Model(images, Augmenter()(images)).predict_on_batch(raw_images())
    plain = aug.augment(raw_images(), ALL, keras.random.SeedGenerator(5))
    assert ops.shape(plain) == compiled.shape
    assert apart(compiled, np.asarray(plain)) < 1e-5


def of_channels(channels, **kwargs):
    """Images of so many channels, different in each."""
    return np.concatenate([floats(**kwargs), floats(**kwargs, seed=1)], axis=3)[..., :channels]


@pytest.mark.parametrize("channels", [1, 4])
def test_brightness_and_contrast_of_other_images_than_rgb_equal_their_formulas(channels):
    images, factors = of_channels(channels, count=2, low=0.3, high=0.7), array(0.6, 1.4)
    for image, factor, bright, contrast in zip(
        images.astype(float),
        factors.astype(float),
        np.asarray(color.adjust_brightness(images, factors)),
        np.asarray(color.adjust_contrast(images, factors)),
        strict=True,
    ):
        assert apart(bright, np.clip(image * factor, 0, 1)) < 1e-5
        assert apart(contrast, np.clip(image.mean() + factor * (image - image.mean()), 0, 1)) < 1e-5


@pytest.mark.parametrize("crop", ["resized", "translated"])
@pytest.mark.parametrize("channels", [1, 4])
def test_places_change_alike_in_every_channel(channels, crop):
    policy = augmentation(crop=crop, rotation=0.2, blur_probability=1.0)
    images = of_channels(channels)
    draws = aug.draw(len(images), policy, keras.random.SeedGenerator(3))
    found = np.asarray(aug.apply(images, policy, draws))
    assert found.shape == images.shape
    for channel in range(channels):
        alone = np.repeat(images[..., channel : channel + 1], 3, axis=3)
        expected = np.asarray(aug.apply(alone, policy, draws))[..., 0]
        assert apart(found[..., channel], expected) < 1e-5
    assert apart(found, images) > 0.1


@pytest.mark.parametrize("channels", [1, 4])
def test_jitter_and_affine_brightness_work_on_any_number_of_channels(channels):
    policy = augmentation(**STILL, brightness=0.4, contrast=0.4, jitter_probability=1.0, affine_brightness=0.5)
    images = of_channels(channels, low=0.2, high=0.8)
    draws = aug.draw(len(images), policy, keras.random.SeedGenerator(3))
    expected = color.adjust_brightness(images, draws["brightness"])
    expected = color.adjust_contrast(expected, draws["contrast"])
    expected = np.clip(np.asarray(expected) * np.asarray(draws["affine_scale"])[:, None, None, None], 0, 1)
    found = np.asarray(aug.apply(images, policy, draws))
    assert apart(found, expected) < 1e-6
    assert apart(found, images) > 0.01
    raw = (255 * images).astype("uint8")
    assert np.asarray(aug.augment(raw, policy, keras.random.SeedGenerator(3))).shape == images.shape


@pytest.mark.parametrize("name", aug.COLORS)
def test_a_change_of_colour_is_refused_where_images_have_none(name):
    policy = augmentation(**{name: 0.25})
    for channels in (1, 4):
        with pytest.raises(
            ValueError, match=rf"^{name} = 0.25: changes the colours of RGB, which these images are"
        ):
            aug.augment((255 * of_channels(channels)).astype("uint8"), policy, keras.random.SeedGenerator(0))
    policy.require_channels(3)
    augmentation().require_channels(1)
