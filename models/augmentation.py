"""Random changes of images, each image on its own, batched and on the device.

Drawing the random numbers (`draw`) is apart from applying them (`apply`), so that each operation can be checked
against a plain reference, and so that every backend gives the same picture for the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

# ITU-R BT.601, as Pillow and torchvision use it
GREY = (0.299, 0.587, 0.114)
# RGB → YIQ: a rotation in the plane of I and Q changes the hue and keeps the brightness (as NVIDIA DALI does).
# The usual three digits (0.596, −0.274, −0.321) do not add up to 0 and would tint grey.
YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], "float32"
)


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image, in this order.

    Args:
        crop_area: range of the crop's area as a fraction of the image, within (0, 1]; resized back.
        crop_ratio: range of the crop's width over height, drawn log-uniformly.
        flip: mirror left to right with probability 1/2.
        brightness: factor drawn from [1 − b, 1 + b].
        contrast: factor drawn from [1 − c, 1 + c], about the image's mean grey.
        saturation: factor drawn from [1 − s, 1 + s], about each pixel's grey.
        hue: rotation drawn from [−h, h] turns; 0.5 is any hue.
        jitter_probability: of brightness, contrast, saturation and hue together.
        grey_probability: of dropping colour altogether.
        blur_probability: of a Gaussian blur.
        blur_sigma: range of the blur's standard deviation, pixels.

    Source: Chen et al. 2020, arXiv:2002.05709, appendix A.
    """

    crop_area: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 0.8
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    @property
    def jitters(self) -> bool:
        """Whether any colour jitter is on."""
        return self.jitter_probability > 0 and any((self.brightness, self.contrast, self.saturation, self.hue))


def augment(images, policy: Augmentation, seed):
    """Augment a batch.

    Args:
        images: uint8 in [0, 255], shape (N, H, W, 3).
        policy: what may happen.
        seed: a `keras.random.SeedGenerator`.

    Returns:
        Float32 in [0, 1], shape (N, H, W, 3).
    """
    return apply(scale(images), policy, draw(ops.shape(images)[0], policy, seed))


def scale(images):
    """Images in [0, 255] as float32 in [0, 1]."""
    return ops.cast(images, "float32") / 255.0


def draw(n, policy: Augmentation, seed) -> dict:
    """Random numbers for n images: name → float32, shape (n,).

    `height`, `width`, `top` and `left` are fractions of the image; `mirror`, `jitter`, `grey` and `blur` are 0 or
    1; `brightness`, `contrast` and `saturation` are factors; `hue` is in turns; `sigma` in pixels.
    """

    def uniform(low, high):
        return keras.random.uniform((n,), low, high, dtype="float32", seed=seed)

    def coin(probability):
        return ops.cast(uniform(0.0, 1.0) < probability, "float32")

    area = uniform(*policy.crop_area)
    ratio = ops.exp(uniform(math.log(policy.crop_ratio[0]), math.log(policy.crop_ratio[1])))
    # a crop wider or higher than the image is cut to it
    height = ops.minimum(ops.sqrt(area / ratio), 1.0)
    width = ops.minimum(ops.sqrt(area * ratio), 1.0)
    draws = {
        "height": height,
        "width": width,
        "top": uniform(0.0, 1.0) * (1.0 - height),
        "left": uniform(0.0, 1.0) * (1.0 - width),
    }
    if policy.flip:
        draws["mirror"] = coin(0.5)
    if policy.jitters:
        draws["jitter"] = coin(policy.jitter_probability)
        for name in ("brightness", "contrast", "saturation"):
            strength = getattr(policy, name)
            draws[name] = uniform(1.0 - strength, 1.0 + strength)
        draws["hue"] = uniform(-policy.hue, policy.hue)
    if policy.grey_probability:
        draws["grey"] = coin(policy.grey_probability)
    if policy.blur_probability:
        draws["blur"] = coin(policy.blur_probability)
        draws["sigma"] = uniform(*policy.blur_sigma)
    return draws


def apply(images, policy: Augmentation, draws: dict):
    """Apply drawn numbers to float images in [0, 1]; the result is in [0, 1] again."""
    images = crop_and_resize(
        images, draws["top"], draws["left"], draws["height"], draws["width"], draws.get("mirror")
    )
    if policy.jitters:
        jittered = adjust_brightness(images, draws["brightness"])
        jittered = adjust_contrast(jittered, draws["contrast"])
        jittered = adjust_saturation(jittered, draws["saturation"])
        if policy.hue:
            jittered = rotate_hue(jittered, draws["hue"])
        images = _choose(draws["jitter"], jittered, images)
    if policy.grey_probability:
        images = _choose(draws["grey"], ops.repeat(_grey(images), 3, axis=-1), images)
    if policy.blur_probability:
        images = _choose(draws["blur"], gaussian_blur(images, draws["sigma"]), images)
    return images


def crop_and_resize(images, top, left, height, width, mirror=None):
    """Cut one box from each image and stretch it to the image's size, bilinearly, with pixel centres at half steps.

    Args:
        images: float, shape (N, H, W, 3).
        top, left, height, width: the boxes as fractions of the image, shape (N,).
        mirror: 1 to flip left to right, else 0, shape (N,), or None.

    Returns:
        Float32, shape (N, H, W, 3).
    """
    rows = _interpolation(images.shape[1], top, height)
    if mirror is not None:
        left, width = left + mirror * width, width * (1.0 - 2.0 * mirror)
    columns = _interpolation(images.shape[2], left, width)
    return _separable(images, rows, columns)


def adjust_brightness(images, factor):
    """Scale each image by its factor, shape (N,); the result is clipped to [0, 1]."""
    return ops.clip(images * _per_image(factor), 0.0, 1.0)


def adjust_contrast(images, factor):
    """Move each image away from (> 1) or towards (< 1) its mean grey by its factor, shape (N,)."""
    factor = _per_image(factor)
    mean = ops.mean(_grey(images), axis=(1, 2), keepdims=True)
    return ops.clip(images * factor + mean * (1.0 - factor), 0.0, 1.0)


def adjust_saturation(images, factor):
    """Move each pixel away from (> 1) or towards (< 1) its own grey by its image's factor, shape (N,)."""
    factor = _per_image(factor)
    return ops.clip(images * factor + _grey(images) * (1.0 - factor), 0.0, 1.0)


def rotate_hue(images, turns):
    """Rotate each image's hue by so many turns, shape (N,), in YIQ; the result is clipped to [0, 1]."""
    angle = turns * (2.0 * math.pi)
    cosine, sine = ops.cos(angle), ops.sin(angle)
    zero, one = ops.zeros_like(angle), ops.ones_like(angle)
    rotation = ops.reshape(
        ops.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], axis=-1), (-1, 3, 3)
    )
    to_yiq, to_rgb = ops.convert_to_tensor(YIQ), ops.convert_to_tensor(np.linalg.inv(YIQ).astype("float32"))
    matrix = ops.matmul(to_rgb, ops.matmul(rotation, to_yiq))
    pixels = ops.reshape(images, (-1, images.shape[1] * images.shape[2], 3))
    rotated = ops.matmul(pixels, ops.transpose(matrix, (0, 2, 1)))
    return ops.clip(ops.reshape(rotated, (-1, *images.shape[1:])), 0.0, 1.0)


def gaussian_blur(images, sigma):
    """Blur each image with its own standard deviation in pixels, shape (N,); weights at the edge are rescaled."""
    return _separable(images, _gaussian(images.shape[1], sigma), _gaussian(images.shape[2], sigma))


def _interpolation(size, start, extent):
    """Bilinear weights from `size` pixels to `size` samples of [start, start + extent]: (N, size, size)."""
    centres = (ops.arange(size, dtype="float32") + 0.5) / size
    position = (start[:, None] + centres[None, :] * extent[:, None]) * size - 0.5
    position = ops.clip(position, 0.0, size - 1.0)
    distance = ops.abs(position[:, :, None] - ops.arange(size, dtype="float32")[None, None, :])
    return ops.maximum(1.0 - distance, 0.0)


def _gaussian(size, sigma):
    pixels = ops.arange(size, dtype="float32")
    squares = ops.square(pixels[:, None] - pixels[None, :])[None]
    return ops.softmax(-squares / (2.0 * ops.square(sigma)[:, None, None]), axis=-1)


def _separable(images, rows, columns):
    """Mix rows, then columns, by each image's own matrices: matrix products are what accelerators do best."""
    height, width = images.shape[1], images.shape[2]
    mixed = ops.matmul(rows, ops.reshape(images, (-1, height, width * 3)))
    mixed = ops.reshape(mixed, (-1, height, width, 3))
    mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, width, height * 3))
    mixed = ops.reshape(ops.matmul(columns, mixed), (-1, width, height, 3))
    return ops.transpose(mixed, (0, 2, 1, 3))


def _grey(images):
    return ops.sum(images * ops.convert_to_tensor(np.array(GREY, "float32")), axis=-1, keepdims=True)


def _per_image(values):
    return values[:, None, None, None]


def _choose(mask, changed, images):
    mask = _per_image(mask)
    return changed * mask + images * (1.0 - mask)
