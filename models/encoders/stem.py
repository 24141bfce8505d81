"""Which first layers a residual network gets."""

from __future__ import annotations

STEMS = ("auto", "small", "large")
# below it, 7×7 with stride 2 and max-pooling would leave too little of the image: several points of accuracy
LARGE_FROM = 64


def small_stem(stem: str, image_size: int) -> bool:
    """Whether the network starts with 3×3, stride 1 and no max-pooling, instead of its published layers.

    Args:
        stem: one of `STEMS`; `auto` goes by the image.
        image_size: pixels.

    Raises:
        ValueError: the stem is unknown.
    """
    if stem not in STEMS:
        raise ValueError(f"stem must be one of {', '.join(STEMS)}, not {stem!r}")
    return stem == "small" or (stem == "auto" and image_size < LARGE_FROM)
