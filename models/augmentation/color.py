"""Changes of colour: each pixel is changed by itself, each image by its own numbers."""

from __future__ import annotations

import math

import numpy as np
from keras import ops

# ITU-R BT.601, as Pillow and torchvision use it
GREY = (0.299, 0.587, 0.114)
# RGB → YIQ: a rotation in the plane of I and Q changes the hue and keeps the brightness (as NVIDIA DALI does).
# The usual three digits (0.596, −0.274, −0.321) do not add up to 0 and would tint grey.
YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]], "float32"
)


def adjust_brightness(images, factor):
    """Scale each image by its factor, shape (N,); the result is clipped to [0, 1]."""
    return ops.clip(images * _per_image(factor), 0.0, 1.0)


def adjust_contrast(images, factor, about="grey"):
    """Move each image away from (> 1) or towards (< 1) its mean by its factor, shape (N,).

    Args:
        images: float in [0, 1], shape (N, H, W, C).
        factor: of each image.
        about: `grey`, the image's mean grey, as Pillow and torchvision do; `channels`, each channel's own mean, as
            TensorFlow and PIX do, which leaves the image's tint as it is.
    """
    factor = _per_image(factor)
    mean = ops.mean(_grey(images) if about == "grey" else images, axis=(1, 2), keepdims=True)
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


def mix_colors(images, scale, jitter):
    """Multiply each pixel, a row of three, by its image's matrix; the result is clipped to [0, 1].

    Args:
        images: float, shape (N, H, W, 3).
        scale: factor of the unit matrix, shape (N,).
        jitter: what is added to that, shape (N, 3, 3).

    Returns:
        Float32, shape (N, H, W, 3).
    """
    return _mix(images, scale[:, None, None] * ops.eye(3, dtype="float32") + jitter)


def drop_color(images):
    """Each pixel's grey in all three channels."""
    return ops.repeat(_grey(images), 3, axis=-1)


def _grey(images):
    """Of RGB its luminance, of other images the mean of the channels: (N, H, W, 1)."""
    if images.shape[-1] != 3:
        return ops.mean(images, axis=-1, keepdims=True)
    return ops.sum(images * ops.convert_to_tensor(np.array(GREY, "float32")), axis=-1, keepdims=True)


def _mix(images, matrix):
    """Each pixel, a row of three, times its image's matrix (N, 3, 3), clipped to [0, 1]."""
    pixels = ops.reshape(images, (-1, images.shape[1] * images.shape[2], 3))
    return ops.clip(ops.reshape(ops.matmul(pixels, matrix), (-1, *images.shape[1:])), 0.0, 1.0)


def _per_image(values):
    return values[:, None, None, None]
