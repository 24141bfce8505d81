"""Random changes of images, each image on its own, batched and on the device.

Drawing the random numbers (`draw`) is apart from applying them (`apply`), so that each operation can be checked
against a plain reference, and so that every backend gives the same picture for the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
    """What may happen to an image: crop, mirror, rotation, jitter, colour affine, grey, blur, in this order.

    Args:
        crop_area: range of the crop's area as a fraction of the image, within (0, 1]; resized back.
        crop_ratio: range of the crop's width over height, drawn log-uniformly; of `resized` crops only.
        flip: mirror left to right with probability 1/2.
        brightness: factor drawn from [1 − b, 1 + b].
        contrast: factor drawn from [1 − c, 1 + c], about the image's mean grey.
        saturation: factor drawn from [1 − s, 1 + s], about each pixel's grey.
        hue: rotation drawn from [−h, h] turns; 0.5 is any hue.
        jitter_probability: of brightness, contrast, saturation and hue together.
        grey_probability: of dropping colour altogether.
        blur_probability: of a Gaussian blur.
        blur_sigma: range of the blur's standard deviation, pixels.
        blur_kernel: pixels to which the Gaussian is cut, odd; None cuts it at the image's border only.
        crop: `resized` draws area, ratio and a place within the image. `translated` draws height and width, each
            from [√a, √b] of the image for the area's range [a, b], and moves the crop from the image's centre by
            up to ±(1 − √a)/2 of the image each way; what lies beyond the border is reflected.
        rotation: angle drawn from [−r, r] turns, about the centre; what lies beyond the border is reflected.
        affine_brightness: colour affine: factor drawn from [1 − b, 1 + b], the same for the three colours …
        affine_jitter: … plus a 3×3 matrix drawn from [−j, j] that mixes them.

    Sources: Chen et al. 2020, arXiv:2002.05709, appendix A; translated crop and colour affine: Béres,
    "Semi-supervised image classification using contrastive pretraining with SimCLR", keras.io, 2021.
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
    blur_kernel: int | None = None
    crop: Literal["resized", "translated"] = "resized"
    rotation: float = 0.0
    affine_brightness: float = 0.0
    affine_jitter: float = 0.0

    @property
    def jitters(self) -> bool:
        """Whether any colour jitter is on."""
        return self.jitter_probability > 0 and any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def mixes(self) -> bool:
        """Whether the colour affine is on."""
        return bool(self.affine_brightness or self.affine_jitter)


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
    """Random numbers for n images: name → float32, shape (n,); `affine_jitter` (n, 3, 3).

    `height`, `width`, `top`, `left`, `down` and `right` are fractions of the image; `mirror`, `jitter`, `grey` and
    `blur` are 0 or 1; `brightness`, `contrast`, `saturation` and `affine_scale` are factors; `hue` and `rotation`
    are in turns; `sigma` in pixels. What is off is not drawn, so that the same seed goes on giving the same numbers
    for the rest.
    """

    def uniform(low, high, shape=()):
        return keras.random.uniform((n, *shape), low, high, dtype="float32", seed=seed)

    def coin(probability):
        return ops.cast(uniform(0.0, 1.0) < probability, "float32")

    draws = _draw_translated(policy, uniform) if policy.crop == "translated" else _draw_resized(policy, uniform)
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
    if policy.rotation:
        draws["rotation"] = uniform(-policy.rotation, policy.rotation)
    if policy.mixes:
        draws["affine_scale"] = uniform(1.0 - policy.affine_brightness, 1.0 + policy.affine_brightness)
        draws["affine_jitter"] = uniform(-policy.affine_jitter, policy.affine_jitter, (3, 3))
    return draws


def _draw_resized(policy, uniform):
    area = uniform(*policy.crop_area)
    ratio = ops.exp(uniform(math.log(policy.crop_ratio[0]), math.log(policy.crop_ratio[1])))
    # a crop wider or higher than the image is cut to it
    height = ops.minimum(ops.sqrt(area / ratio), 1.0)
    width = ops.minimum(ops.sqrt(area * ratio), 1.0)
    return {
        "height": height,
        "width": width,
        "top": uniform(0.0, 1.0) * (1.0 - height),
        "left": uniform(0.0, 1.0) * (1.0 - width),
    }


def _draw_translated(policy, uniform):
    least, most = (math.sqrt(area) for area in policy.crop_area)
    shift = (1.0 - least) / 2.0
    return {
        "height": uniform(least, most),
        "width": uniform(least, most),
        "down": uniform(-shift, shift),
        "right": uniform(-shift, shift),
    }


def apply(images, policy: Augmentation, draws: dict):
    """Apply drawn numbers to float images in [0, 1]; the result is in [0, 1] again."""
    box, mirror = (draws["height"], draws["width"]), draws.get("mirror")
    if policy.crop == "translated":
        images = translate_and_zoom(images, draws["down"], draws["right"], *box, mirror)
    else:
        images = crop_and_resize(images, draws["top"], draws["left"], *box, mirror)
    if policy.rotation:
        images = rotate(images, draws["rotation"])
    if policy.jitters:
        jittered = adjust_brightness(images, draws["brightness"])
        jittered = adjust_contrast(jittered, draws["contrast"])
        jittered = adjust_saturation(jittered, draws["saturation"])
        if policy.hue:
            jittered = rotate_hue(jittered, draws["hue"])
        images = _choose(draws["jitter"], jittered, images)
    if policy.mixes:
        images = mix_colours(images, draws["affine_scale"], draws["affine_jitter"])
    if policy.grey_probability:
        images = _choose(draws["grey"], ops.repeat(_grey(images), 3, axis=-1), images)
    if policy.blur_probability:
        blurred = gaussian_blur(images, draws["sigma"], policy.blur_kernel)
        images = _choose(draws["blur"], blurred, images)
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
    columns = _interpolation(images.shape[2], *_mirrored(left, width, mirror))
    return _separable(images, rows, columns)


def translate_and_zoom(images, down, right, height, width, mirror=None):
    """Shift each image, then stretch a box about its centre to the image's size.

    The same picture as Keras's `RandomTranslation` and `RandomZoom` give one after the other: each interpolates
    bilinearly, and what the shift brings in is reflected at the border.

    Args:
        images: float, shape (N, H, W, 3).
        down, right: the shift as a fraction of the image, shape (N,).
        height, width: the box as fractions of the image, shape (N,).
        mirror: 1 to flip left to right at last, else 0, shape (N,), or None.

    Returns:
        Float32, shape (N, H, W, 3).
    """
    high, wide = images.shape[1], images.shape[2]
    one = ops.ones_like(down)
    box = _mirrored((1.0 - width) / 2.0, width, mirror)
    rows = ops.matmul(_interpolation(high, (1.0 - height) / 2.0, height), _interpolation(high, -down, one, True))
    columns = ops.matmul(_interpolation(wide, *box), _interpolation(wide, -right, one, True))
    return _separable(images, rows, columns)


def rotate(images, turns):
    """Rotate each image about its centre by so many turns, shape (N,), anticlockwise.

    Bilinear; what comes in from beyond the border is reflected there, as Keras's `RandomRotation` does.
    """
    high, wide = images.shape[1], images.shape[2]
    angle = turns[:, None, None] * (2.0 * math.pi)
    cosine, sine = ops.cos(angle), ops.sin(angle)
    y = (ops.arange(high, dtype="float32") - (high - 1) / 2.0)[None, :, None]
    x = (ops.arange(wide, dtype="float32") - (wide - 1) / 2.0)[None, None, :]
    rows = _reflected(sine * x + cosine * y + (high - 1) / 2.0, high)
    columns = _reflected(cosine * x - sine * y + (wide - 1) / 2.0, wide)
    return _sample(images, rows, columns)


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
    return _mix(images, ops.transpose(matrix, (0, 2, 1)))


def mix_colours(images, scale, jitter):
    """Multiply each pixel, a row of three, by its image's matrix; the result is clipped to [0, 1].

    Args:
        images: float, shape (N, H, W, 3).
        scale: factor of the unit matrix, shape (N,).
        jitter: what is added to that, shape (N, 3, 3).

    Returns:
        Float32, shape (N, H, W, 3).
    """
    return _mix(images, scale[:, None, None] * ops.eye(3, dtype="float32") + jitter)


def gaussian_blur(images, sigma, kernel=None):
    """Blur each image with its own standard deviation.

    Args:
        images: float, shape (N, H, W, 3).
        sigma: pixels, shape (N,).
        kernel: pixels to which the Gaussian is cut, odd, or None. Weights that remain within it and within the
            image are rescaled to a sum of 1.

    Returns:
        Float32, shape (N, H, W, 3).
    """
    rows, columns = (_gaussian(size, sigma, kernel) for size in images.shape[1:3])
    return _separable(images, rows, columns)


def _mirrored(left, width, mirror):
    if mirror is None:
        return left, width
    return left + mirror * width, width * (1.0 - 2.0 * mirror)


def _interpolation(size, start, extent, reflect=False):
    """Bilinear weights from `size` pixels to `size` samples of [start, start + extent]: (N, size, size).

    Beyond the border the border's pixels go on, or with `reflect` the image's mirror image does.
    """
    centres = (ops.arange(size, dtype="float32") + 0.5) / size
    position = (start[:, None] + centres[None, :] * extent[:, None]) * size - 0.5
    position = _reflected(position, size) if reflect else ops.clip(position, 0.0, size - 1.0)
    distance = ops.abs(position[:, :, None] - ops.arange(size, dtype="float32")[None, None, :])
    return ops.maximum(1.0 - distance, 0.0)


def _reflected(position, size):
    """Positions in pixels, folded back at the border as often as it takes, within [0, size − 1]."""
    folded = size - ops.abs(size - ops.mod(position + 0.5, 2.0 * size))
    # between the border and the centre of its pixel there is that pixel's colour only
    return ops.clip(folded - 0.5, 0.0, size - 1.0)


def _sample(images, rows, columns):
    """Bilinear samples of each image at positions within it, in pixels: (N, H, W) → (N, H, W, 3)."""
    high, wide = images.shape[1], images.shape[2]
    pixels = ops.reshape(images, (-1, 3))
    first = ops.arange(ops.shape(images)[0])[:, None, None] * (high * wide)
    top, left = ops.floor(rows), ops.floor(columns)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    top, left = ops.cast(top, "int32"), ops.cast(left, "int32")
    below, right = ops.minimum(top + 1, high - 1), ops.minimum(left + 1, wide - 1)

    def mixed(row):
        # one gather from all images' pixels: a gather within each image has no fast kernel
        at_left, at_right = (ops.take(pixels, first + row * wide + column, axis=0) for column in (left, right))
        return at_left * (1.0 - across) + at_right * across

    return mixed(top) * (1.0 - down) + mixed(below) * down


def _gaussian(size, sigma, kernel=None):
    pixels = ops.arange(size, dtype="float32")
    squares = ops.square(pixels[:, None] - pixels[None, :])[None]
    logits = -squares / (2.0 * ops.square(sigma)[:, None, None])
    if kernel is not None:
        logits = ops.where(squares > (kernel // 2) ** 2, -math.inf, logits)
    return ops.softmax(logits, axis=-1)


def _mix(images, matrix):
    """Each pixel, a row of three, times its image's matrix (N, 3, 3), clipped to [0, 1]."""
    pixels = ops.reshape(images, (-1, images.shape[1] * images.shape[2], 3))
    return ops.clip(ops.reshape(ops.matmul(pixels, matrix), (-1, *images.shape[1:])), 0.0, 1.0)


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
