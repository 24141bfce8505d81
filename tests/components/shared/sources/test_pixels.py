"""Decoding: every kind of image becomes upright 8-bit RGB of the right size, or one clear line."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from components.shared.errors import UserError
from components.shared.sources.pixels import CHUNK, ImageFile, content_digest, decode, decode_all
from tests.helpers.image_trees import encode, picture

SIZE = 16


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_an_image_of_the_right_size_is_untouched(kind, options):
    pixels = picture("a", SIZE)
    decoded = decode(encode(pixels, kind, **options), SIZE, "a").pixels
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_grey_becomes_three_equal_channels():
    grey = picture("grey", SIZE)[..., 0]
    np.testing.assert_array_equal(decode(encode(grey), SIZE, "a").pixels, np.repeat(grey[..., None], 3, axis=2))


def test_16_bit_grey_is_scaled_not_clipped():
    grey = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 257
    assert grey.max() == 65535
    np.testing.assert_array_equal(decode(encode(grey), SIZE, "a").pixels[..., 1], (grey // 257).astype(np.uint8))


def test_black_and_white_becomes_0_and_255():
    bits = picture("bits", SIZE)[..., 0] > 127
    np.testing.assert_array_equal(
        decode(saved(Image.fromarray(bits)), SIZE, "a").pixels[..., 2], bits * np.uint8(255)
    )


def test_transparent_parts_become_white_and_opaque_ones_stay():
    pixels = np.dstack([picture("rgba", SIZE), np.full((SIZE, SIZE), 255, np.uint8)])
    pixels[:4, :, 3] = 0
    decoded = decode(encode(pixels), SIZE, "a").pixels
    assert (decoded[:4] == 255).all()
    np.testing.assert_array_equal(decoded[4:], pixels[4:, :, :3])


def test_a_transparent_colour_of_a_palette_or_of_rgb_becomes_white():
    palette = Image.new("P", (SIZE, SIZE), 1)
    palette.putpalette([0, 0, 0, 200, 10, 30])
    palette.paste(0, (0, 0, SIZE, 4))
    colour = Image.new("RGB", (SIZE, SIZE), (200, 10, 30))
    colour.paste((0, 0, 0), (0, 0, SIZE, 4))
    for data in (saved(palette, transparency=0), saved(colour, transparency=(0, 0, 0))):
        decoded = decode(data, SIZE, "a").pixels
        assert (decoded[:4] == 255).all()
        assert (decoded[4:] == (200, 10, 30)).all()


def test_cmyk_becomes_rgb():
    cmyk = Image.new("RGB", (SIZE, SIZE), (220, 30, 40)).convert("CMYK")
    decoded = decode(saved(cmyk, "JPEG", quality=95), SIZE, "a").pixels.astype(int)
    assert np.abs(decoded - (220, 30, 40)).max() < 12


def test_exif_orientation_turns_the_image_upright():
    pixels = picture("exif", SIZE)
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held so that the image must be turned by 90° clockwise
    np.testing.assert_array_equal(decode(saved(turned, exif=exif), SIZE, "a").pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize("axis", [0, 1])
def test_the_centre_square_of_a_longer_image_is_kept(axis):
    stripes = np.zeros((60, 180, 3), np.uint8)
    stripes[:, :60, 0] = stripes[:, 60:120, 1] = stripes[:, 120:, 2] = 255
    decoded = decode(encode(stripes if axis else stripes.swapaxes(0, 1)), SIZE, "a").pixels
    inside = decoded[1:-1, 1:-1]
    assert (inside == (0, 255, 0)).all()


def test_shrinking_averages_and_does_not_alias():
    fine = (np.indices((SIZE * 8, SIZE * 8)).sum(axis=0) % 2 * 255).astype(np.uint8)
    decoded = decode(encode(fine), SIZE, "a").pixels.astype(int)
    assert np.abs(decoded - 127.5).max() < 8


def test_a_small_image_is_enlarged():
    assert (decode(encode(np.full((3, 5, 3), 77, np.uint8)), SIZE, "a").pixels == 77).all()


def test_the_short_cut_for_large_photographs_looks_the_same():
    y, x = np.indices((1200, 1600)) / 100
    photograph = np.stack([np.sin(x) + np.sin(y), np.cos(x * y / 9), np.sin(x - y)], axis=2) * 60 + 128
    data = encode(photograph.astype(np.uint8), "JPEG", quality=92)
    whole = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.BICUBIC, box=(200, 0, 1400, 1200))
    assert np.abs(decode(data, 64, "a").pixels.astype(int) - np.asarray(whole)).mean() < 1.5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image at all",
        encode(picture("a", 40))[:300],
        encode(picture("a", 40), "JPEG")[:500],
        encode(picture("a", 40), "WEBP")[:200],
        encode(picture("a", 40), "BMP"),
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "half a WebP", "BMP"],
)
def test_a_damaged_file_is_named_in_one_line(data):
    with pytest.raises(UserError) as caught:
        decode(data, SIZE, "photos/cat/7.jpg")
    message = str(caught.value)
    assert message.startswith("photos/cat/7.jpg: can't be read as an image: ")
    assert "\n" not in message


def test_many_images_come_in_order_and_are_read_only_as_needed():
    read = []

    def files():
        for index in range(2000):
            read.append(index)
            yield ImageFile(encode(np.full((SIZE, SIZE, 3), index % 251, np.uint8)), str(index), "")

    decoded = decode_all(files(), SIZE)
    first = next(decoded)
    assert len(read) <= CHUNK * (2 * (os.cpu_count() or 1) + 1)
    assert [int(image.pixels[0, 0, 0]) for image in (first, *decoded)] == [i % 251 for i in range(2000)]


def test_a_damaged_file_among_many_is_named():
    good = encode(picture("a", SIZE))
    files = [ImageFile(good if index != 70 else b"?", str(index), "") for index in range(90)]
    with pytest.raises(UserError, match=r"^70: "):
        list(decode_all(files, SIZE))


def test_a_digest_is_of_the_whole_image_whatever_its_name_format_and_size_asked_for():
    wide = picture("wide", (30, 50))
    found = [decode(encode(wide, kind, lossless=True), size, kind) for kind in ("PNG", "WEBP") for size in (8, 30)]
    assert {image.digest for image in found} == {content_digest(wide)}
    assert {(image.width, image.height) for image in found} == {(50, 30)}
    edge = wide.copy()
    # outside of the centre square
    edge[0, 0, 0] ^= 1
    other = decode(encode(edge), 8, "a")
    assert other.digest != found[0].digest
    np.testing.assert_array_equal(other.pixels, found[0].pixels)
    assert content_digest(wide.reshape(50, 30, 3)) != content_digest(wide)


def test_the_digest_of_a_large_jpeg_does_not_depend_on_the_size_asked_for():
    data = encode(picture("large", (400, 600)), "JPEG")
    assert decode(data, 8, "a").digest == decode(data, 400, "a").digest


def test_a_turned_image_has_the_size_that_one_sees():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode(saved(Image.fromarray(picture("a", (10, 20))), exif=exif), SIZE, "a")
    assert (upright.width, upright.height) == (10, 20)
