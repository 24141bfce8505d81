"""Random changes of images, each image on its own, batched and on the device.

Drawing the random numbers (`draw`) is apart from applying them (`apply`), so that each operation can be checked
against a plain reference, and so that every backend gives the same picture for the same numbers.
"""

from __future__ import annotations

import math
from typing import Literal

import keras
from keras import ops

from models.augmentation import color, spatial
from models.options import options, within

# what changes the colours of RGB, and means nothing for other images
COLORS = ("saturation", "hue", "grey_probability", "affine_jitter")


@options
class Augmentation:
    """What may happen to an image: crop, mirror, rotation, jitter, colour affine, grey, blur, in this order.

    Saturation, hue, grey and `affine_jitter` are for RGB only.

    Args:
        size: side of what comes out, pixels; None: the image's. Smaller views cost less, and what a crop enlarges
            then has about the size that it has in a whole image. The encoder must take images of any size.
        crop_area: range of the crop's area as a fraction of the image, within (0, 1]; resized back.
        crop_ratio: range of the crop's width over height, drawn log-uniformly; of `resized` crops only.
        flip: mirror left to right with probability 1/2.
        brightness: factor drawn from [1 − b, 1 + b].
        contrast: factor drawn from [1 − c, 1 + c].
        contrast_about: what contrast is raised or lowered about: `grey`, the image's mean grey (of images that are
            not RGB the mean of all channels), or `channels`, each channel's own mean.
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
        affine_brightness: colour affine: factor drawn from [1 − b, 1 + b], the same for all channels …
        affine_jitter: … plus a 3×3 matrix drawn from [−j, j] that mixes them.

    Sources: Chen et al. 2020, arXiv:2002.05709, appendix A; translated crop and colour affine: Béres,
    "Semi-supervised image classification using contrastive pretraining with SimCLR", keras.io, 2021; smaller views
    than images: Touvron et al. 2019, arXiv:1906.06423.
    """

    size: int | None = within(ge=16, le=1024)
    crop_area: tuple[float, float]
    crop_ratio: tuple[float, float]
    flip: bool
    brightness: float = within(ge=0, le=1)
    contrast: float = within(ge=0, le=1)
    contrast_about: Literal["grey", "channels"]
    saturation: float = within(ge=0, le=1)
    hue: float = within(ge=0, le=0.5)
    jitter_probability: float = within(ge=0, le=1)
    grey_probability: float = within(ge=0, le=1)
    blur_probability: float = within(ge=0, le=1)
    blur_sigma: tuple[float, float]
    blur_kernel: int | None = within(ge=3)
    crop: Literal["resized", "translated"]
    rotation: float = within(ge=0, le=0.5)
    affine_brightness: float = within(ge=0, le=1)
    affine_jitter: float = within(ge=0, le=1)

    def __post_init__(self) -> None:
        for name, most in (("crop_area", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= most:
                limit = f" and ≤ {most:g}" if math.isfinite(most) else ""
                raise ValueError(f"{name} = [{low}, {high}]: must be two numbers > 0{limit}, the smaller one first")
        if self.blur_kernel is not None and self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel = {self.blur_kernel}: must be odd, to have a pixel in its middle")

    def require_channels(self, channels: int) -> None:
        """Check that images of so many channels can be changed so.

        Raises:
            ValueError: a change of colour is on, and they are not RGB; it is named.
        """
        for name in COLORS if channels != 3 else ():
            if value := getattr(self, name):
                raise ValueError(f"{name} = {value}: changes the colours of RGB, which these images are not")

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
        images: uint8 in [0, 255], shape (N, H, W, C).
        policy: what may happen.
        seed: a `keras.random.SeedGenerator`.

    Returns:
        Float32 in [0, 1], shape (N, H, W, C), or (N, size, size, C) where the policy says a size.

    Raises:
        ValueError: a change of colour is on, and the images are not RGB.
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
    """Apply drawn numbers to float images in [0, 1]; the result is in [0, 1] again. Raises as `augment`."""
    is_rgb = images.shape[-1] == 3
    policy.require_channels(images.shape[-1])
    box, mirror = (draws["height"], draws["width"]), draws.get("mirror")
    if policy.crop == "translated":
        images = spatial.translate_and_zoom(images, draws["down"], draws["right"], *box, mirror, policy.size)
    else:
        images = spatial.crop_and_resize(images, draws["top"], draws["left"], *box, mirror, policy.size)
    if policy.rotation:
        images = spatial.rotate(images, draws["rotation"])
    if policy.jitters:
        jittered = color.adjust_brightness(images, draws["brightness"])
        jittered = color.adjust_contrast(jittered, draws["contrast"], policy.contrast_about)
        if is_rgb:
            jittered = color.adjust_saturation(jittered, draws["saturation"])
        if policy.hue:
            jittered = color.rotate_hue(jittered, draws["hue"])
        images = _choose(draws["jitter"], jittered, images)
    if policy.mixes and is_rgb:
        images = color.mix_colors(images, draws["affine_scale"], draws["affine_jitter"])
    elif policy.mixes:
        images = color.adjust_brightness(images, draws["affine_scale"])
    if policy.grey_probability:
        images = _choose(draws["grey"], color.drop_color(images), images)
    if policy.blur_probability:
        blurred = spatial.gaussian_blur(images, draws["sigma"], policy.blur_kernel)
        images = _choose(draws["blur"], blurred, images)
    return images


def _choose(mask, changed, images):
    mask = mask[:, None, None, None]
    return changed * mask + images * (1.0 - mask)
