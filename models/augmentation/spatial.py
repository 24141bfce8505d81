"""Changes of place: each pixel becomes a mixture of others. Crops, rotation, blur."""

from __future__ import annotations

import math

from keras import ops


def crop_and_resize(images, top, left, height, width, mirror=None, size=None):
    """Cut one box from each image and stretch it to a size, bilinearly, with pixel centres at half steps.

    Args:
        images: float, shape (N, H, W, C).
        top, left, height, width: the boxes as fractions of the image, shape (N,).
        mirror: 1 to flip left to right, else 0, shape (N,), or None.
        size: height and width of what comes out, pixels; None: the images'.

    Returns:
        Float32, shape (N, H, W, C) or (N, size, size, C).
    """
    rows = _interpolation(images.shape[1], top, height, size)
    left, width = _mirrored(left, width, mirror)
    columns = _interpolation(images.shape[2], left, width, size)
    return _separable(images, rows, columns)


def translate_and_zoom(images, down, right, height, width, mirror=None, size=None):
    """Shift each image, then stretch a box about its centre to a size.

    The same picture as Keras's `RandomTranslation` and `RandomZoom` give one after the other: each interpolates
    bilinearly, and what the shift brings in is reflected at the border.

    Args:
        images: float, shape (N, H, W, C).
        down, right: the shift as a fraction of the image, shape (N,).
        height, width: the box as fractions of the image, shape (N,).
        mirror: 1 to flip left to right at last, else 0, shape (N,), or None.
        size: height and width of what comes out, pixels; None: the images'.

    Returns:
        Float32, shape (N, H, W, C) or (N, size, size, C).
    """
    high, wide = images.shape[1], images.shape[2]
    one = ops.ones_like(down)
    left, width = _mirrored((1.0 - width) / 2.0, width, mirror)
    zoomed_rows = _interpolation(high, (1.0 - height) / 2.0, height, size)
    zoomed_columns = _interpolation(wide, left, width, size)
    rows = ops.matmul(zoomed_rows, _interpolation(high, -down, one, reflect=True))
    columns = ops.matmul(zoomed_columns, _interpolation(wide, -right, one, reflect=True))
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


def gaussian_blur(images, sigma, kernel=None):
    """Blur each image with its own standard deviation.

    Args:
        images: float, shape (N, H, W, C).
        sigma: pixels, shape (N,).
        kernel: pixels to which the Gaussian is cut, odd, or None. Weights that remain within it and within the
            image are rescaled to a sum of 1.

    Returns:
        Float32, shape (N, H, W, C).
    """
    rows, columns = (_gaussian(size, sigma, kernel) for size in images.shape[1:3])
    return _separable(images, rows, columns)


def _mirrored(left, width, mirror):
    if mirror is None:
        return left, width
    return left + mirror * width, width * (1.0 - 2.0 * mirror)


def _interpolation(pixels, start, extent, size=None, reflect=False):
    """Bilinear weights from `pixels` to `size` samples of [start, start + extent]: (N, size, pixels).

    As many samples as pixels where `size` is None. Beyond the border the border's pixels go on, or with `reflect`
    the image's mirror image does.
    """
    samples = pixels if size is None else size
    centres = (ops.arange(samples, dtype="float32") + 0.5) / samples
    position = (start[:, None] + centres[None, :] * extent[:, None]) * pixels - 0.5
    position = _reflected(position, pixels) if reflect else ops.clip(position, 0.0, pixels - 1.0)
    distance = ops.abs(position[:, :, None] - ops.arange(pixels, dtype="float32")[None, None, :])
    return ops.maximum(1.0 - distance, 0.0)


def _reflected(position, size):
    """Positions in pixels, folded back at the border as often as it takes, within [0, size − 1]."""
    folded = size - ops.abs(size - ops.mod(position + 0.5, 2.0 * size))
    # between the border and the centre of its pixel there is that pixel's colour only
    return ops.clip(folded - 0.5, 0.0, size - 1.0)


def _sample(images, rows, columns):
    """Bilinear samples of each image at positions within it, in pixels: (N, H, W) → (N, H, W, C)."""
    high, wide = images.shape[1], images.shape[2]
    pixels = ops.reshape(images, (-1, images.shape[3]))
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


def _separable(images, rows, columns):
    """Mix rows, then columns, by each image's own matrices: matrix products are what accelerators do best."""
    height, width, channels = images.shape[1:]
    to_height, to_width = rows.shape[1], columns.shape[1]
    mixed = ops.matmul(rows, ops.reshape(images, (-1, height, width * channels)))
    mixed = ops.reshape(mixed, (-1, to_height, width, channels))
    mixed = ops.reshape(ops.transpose(mixed, (0, 2, 1, 3)), (-1, width, to_height * channels))
    mixed = ops.reshape(ops.matmul(columns, mixed), (-1, to_width, to_height, channels))
    return ops.transpose(mixed, (0, 2, 1, 3))
