"""Decoding: every kind of image becomes upright 8-bit RGB, grey or four channels of the right size, or one line."""

from __future__ import annotations

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from components.shared.errors import UserError
from components.shared.sources.pixels import BadImageError, Limits, content_digest, decode, fit
from tests.helpers.image_trees import encode, picture, saved

SIZE = 16


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_an_image_of_the_right_size_is_untouched(kind, options):
    pixels = picture("a", SIZE)
    decoded = decode(encode(pixels, kind, **options), SIZE, "a").pixels
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("size", [8, 33, 96])
@pytest.mark.parametrize(
    "options",
    [
        *({"quality": quality, "subsampling": chroma} for quality in (30, 95) for chroma in (0, 1, 2)),
        {"progressive": True},
        {"keep_rgb": True},
        {"restart_marker_blocks": 2},
        {"exif": Image.Exif()},
    ],
)
def test_a_jpeg_of_the_right_size_has_the_pixels_that_pillow_gives_it(options, size):
    data = encode(picture("a", size), "JPEG", **options)
    found = decode(data, size, "a")
    np.testing.assert_array_equal(found.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert found.digest == content_digest(found.pixels)
    assert (found.width, found.height, found.mode, found.bytes, found.bits) == (size, size, "RGB", len(data), None)


def test_of_a_damaged_jpeg_of_the_right_size_pillow_decides_what_it_shows():
    whole = encode(picture("a", 32), "JPEG", quality=90)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(200):
        data = bytearray(whole[: rng.integers(len(whole) // 2, len(whole) + 1)])
        data[rng.integers(2, len(data))] ^= 1 << int(rng.integers(8))
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                expected = fit(image.convert("RGB"), 32)
        except Exception:
            expected = None
        try:
            found = decode(bytes(data), 32, "a").pixels
        except BadImageError:
            found = None
        seen.add(expected is None)
        np.testing.assert_equal(found, expected)
    assert seen == {True, False}


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


def grey_of(pixels):
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def test_as_grey_an_image_has_the_luminance_of_its_colours():
    pixels = picture("a", SIZE)
    palette = Image.fromarray(picture("palette", SIZE)).quantize(16)
    for data in (encode(pixels), encode(pixels, "WEBP", lossless=True), saved(palette)):
        found = decode(data, SIZE, "a", channels=1).pixels
        assert (found.shape, found.dtype) == ((SIZE, SIZE, 1), np.uint8)
        np.testing.assert_array_equal(found, grey_of(decode(data, SIZE, "a").pixels))


def test_as_grey_a_grey_image_stays_as_it_is_and_one_of_16_bits_is_scaled():
    grey = picture("grey", SIZE)[..., 0]
    decoded = decode(encode(grey), SIZE, "a", channels=1)
    np.testing.assert_array_equal(decoded.pixels[..., 0], grey)
    assert decoded.digest == content_digest(grey[..., None])
    for bits in (None, 12):
        deep = encode(grey.astype(np.uint16) * 16)
        found, rgb = (decode(deep, SIZE, "a", bits=bits, channels=channels) for channels in (1, 3))
        np.testing.assert_array_equal(found.pixels, rgb.pixels[..., :1])
        assert found.bits == rgb.bits == 12


def test_as_grey_transparent_parts_become_white():
    pixels = np.dstack([picture("rgba", SIZE), np.full((SIZE, SIZE), 255, np.uint8)])
    pixels[:4, :, 3] = 0
    found = decode(encode(pixels), SIZE, "a", channels=1).pixels
    assert (found[:4] == 255).all()
    np.testing.assert_array_equal(found[4:], grey_of(pixels[..., :3])[4:])


def four(name, size=SIZE):
    """RGB and a fourth channel that is 0 in places, where alpha would hide the colours."""
    pixels = np.dstack([picture(name, size), picture(f"{name} 4", size)[..., 0]])
    pixels[2:6, :, 3] = 0
    return pixels


def tiff_of_four(pixels, **options):
    """As programs for satellite images write it: the fourth channel is not called alpha."""
    image = Image.merge("RGBX", [Image.fromarray(pixels[..., channel]) for channel in range(4)])
    return saved(image, "TIFF", **options)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "RGBX", "packed", "CMYK"])
def test_four_channels_are_taken_as_they_are_stored(kind):
    pixels = four("a")
    data = {
        "PNG": lambda: encode(pixels),
        "TIFF": lambda: encode(pixels, "TIFF"),
        "RGBX": lambda: tiff_of_four(pixels),
        "packed": lambda: tiff_of_four(pixels, compression="tiff_adobe_deflate"),
        "CMYK": lambda: saved(Image.frombytes("CMYK", (SIZE, SIZE), pixels.tobytes()), "TIFF"),
    }[kind]()
    decoded = decode(data, SIZE, "a", channels=4)
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert decoded.digest == content_digest(pixels)
    # as RGB the same file is read as ever
    assert decode(data, SIZE, "a").pixels.shape == (SIZE, SIZE, 3)


def test_each_of_four_channels_is_resized_by_itself():
    pixels = four("a", (40, 28))
    found = decode(encode(pixels), SIZE, "a", channels=4).pixels
    for channel in range(4):
        expected = fit(Image.fromarray(pixels[..., channel]), SIZE)
        np.testing.assert_array_equal(found[..., channel], expected[..., 0])


def test_four_channels_are_turned_upright():
    turned = Image.fromarray(four("a"))
    exif = turned.getexif()
    exif[0x0112] = 6
    found = decode(saved(turned, exif=exif), SIZE, "a", channels=4).pixels
    np.testing.assert_array_equal(found, np.rot90(four("a"), -1))


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB", "3 channels (RGB)"), ("L", "1 channel (L)"), ("LA", "2 channels (LA)"),
                           ("P", "1 channel (P)"), ("I;16", "1 channel (I;16)")]
)  # fmt: skip
def test_a_file_of_fewer_than_four_channels_is_named(mode, channels):
    with pytest.raises(BadImageError) as caught:
        decode(saved(Image.new(mode, (SIZE, SIZE))), SIZE, "field/7.png", channels=4)
    assert str(caught.value) == (
        f"field/7.png: can't be read as an image: it has {channels}, and four are asked for: RGBA, CMYK or a TIFF "
        "of four; repair or remove it"
    )


def test_premultiplied_alpha_is_no_channel_of_its_own():
    # Pillow calls it unassociated (2) whatever it is told
    tags = [struct.pack("<HHIHH", 338, 3, 1, value, 0) for value in (2, 1)]
    data = encode(four("a"), "TIFF")
    assert data.count(tags[0]) == 1
    data = data.replace(*tags)
    with pytest.raises(BadImageError, match="premultiplied alpha; store it as unassociated alpha"):
        decode(data, SIZE, "a.tif", channels=4)


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


def grey_16(highest, size=SIZE):
    return np.linspace(0, highest, size * size).round().astype(np.uint16).reshape(size, size)


@pytest.mark.parametrize(("highest", "bits"), [(255, 8), (1000, 10), (4095, 12), (4096, 14), (16384, 16)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_the_range_that_it_needs(kind, highest, bits):
    grey = grey_16(highest)
    decoded = decode(encode(grey, kind), SIZE, "a")
    assert (decoded.bits, decoded.mode) == (bits, "I;16")
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.round(grey / (2**bits - 1) * 255))


def test_16_bit_grey_is_scaled_by_the_range_asked_for_or_refused():
    grey = grey_16(1000)
    decoded = decode(encode(grey), SIZE, "a", bits=12)
    assert decoded.bits == 10
    np.testing.assert_array_equal(decoded.pixels[..., 0], np.round(grey / 4095 * 255))
    with pytest.raises(BadImageError, match=r"holds values from 0 to 5,000, not within the 0 to 4,095 of 12 bits"):
        decode(encode(grey_16(5000)), SIZE, "a", bits=12)


def test_a_format_that_states_its_range_is_scaled_by_that():
    content = b"P5 16 16 4095\n" + grey_16(2047).astype(">u2").tobytes()
    decoded = decode(content, SIZE, "a.pgm")
    assert (int(decoded.pixels.max()), decoded.bits) == (127, None)


@pytest.mark.parametrize("values", [picture("grey", SIZE)[..., 0], grey_16(4095)], ids=["8 bits", "16 bits"])
def test_the_transparent_value_of_grey_becomes_white(values):
    values = values.copy()
    values[:4] = 7
    values[4:][values[4:] == 7] = 8
    decoded = decode(saved(Image.fromarray(values), transparency=7), SIZE, "a").pixels
    assert (decoded[:4] == 255).all()
    assert decoded[4:, :, 0].min() < 70


@pytest.mark.parametrize("transparent", [np.uint16(65535)])
def test_a_transparent_value_does_not_widen_the_range(transparent):
    values = grey_16(4095)
    values[0] = transparent
    decoded = decode(saved(Image.fromarray(values), transparency=int(transparent)), SIZE, "a")
    assert decoded.bits == 12
    assert (decoded.pixels[0] == 255).all()


def png_of_16_bit_colour(highest):
    """By hand, since Pillow writes none."""
    values = np.repeat(grey_16(highest)[..., None], 3, axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_16_bit_colour_of_a_smaller_range_is_refused_since_it_would_be_black():
    assert decode(png_of_16_bit_colour(65535), SIZE, "a").pixels.max() == 255
    with pytest.raises(BadImageError, match=r"16-bit colours use only the lowest 14 bits or fewer"):
        decode(png_of_16_bit_colour(4095), SIZE, "a")


def test_floating_point_is_refused():
    with pytest.raises(BadImageError, match=r"it holds floating-point values, of which nobody knows the range"):
        decode(saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), SIZE, "a")


@pytest.mark.parametrize("tags", [{50706: b"\1\4\0\0"}, {254: 1}], ids=["DNG", "a preview"])
def test_the_small_preview_in_a_raw_file_of_a_camera_is_not_taken_for_it(tags):
    data = saved(Image.fromarray(picture("a", SIZE)), "TIFF", tiffinfo=TiffImagePlugin.ImageFileDirectory_v2())
    assert decode(data, SIZE, "a.dng").width == SIZE
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
    with pytest.raises(BadImageError, match=r"camera raw images are not read; develop it to JPEG or PNG"):
        decode(saved(Image.fromarray(picture("a", SIZE)), "TIFF", tiffinfo=info), SIZE, "a.dng")


def test_the_content_counts_not_the_ending():
    np.testing.assert_array_equal(
        decode(encode(picture("a", SIZE)), SIZE, "a.jpg").pixels,
        decode(encode(picture("a", SIZE)), SIZE, "a").pixels,
    )


@pytest.mark.parametrize(
    ("mode", "channels"),
    [*((mode, 3) for mode in ("RGB", "RGBA", "L", "P", "I;16")), ("RGB", 1), ("P", 1), ("I;16", 1), ("RGBA", 4)],
)
def test_an_image_that_takes_more_memory_than_there_is_is_refused_before_it_is_decoded(mode, channels):
    image = Image.new(mode, (5000, 5000))
    data = saved(image)
    with pytest.raises(BadImageError) as caught:
        decode(data, SIZE, "a", limits=Limits(64), channels=channels)
    assert re.search(
        r"a: can't be read as an image: 5,000×5,000 pixels: takes \d+ MiB, and 48 MiB are allowed by data.memory = "
        r"64; \d+ is enough; repair or remove it$",
        str(caught.value),
    )
    enough = int(re.search(r"; (\d+) is enough", str(caught.value))[1])
    assert decode(data, SIZE, "a", limits=Limits(enough), channels=channels).width == 5000
    with pytest.raises(BadImageError):
        decode(data, SIZE, "a", limits=Limits(enough - 1), channels=channels)


def test_a_large_image_is_converted_in_parts_with_the_same_result():
    pixels = np.dstack([picture("a", (1500, 1400)), picture("b", (1500, 1400))[..., 0]])
    image = Image.fromarray(pixels)
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    decoded = decode(encode(pixels), 1400, "a")
    assert decoded.digest == content_digest(np.asarray(whole))
    np.testing.assert_array_equal(decoded.pixels, fit(whole, 1400))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image at all",
        encode(picture("a", 40))[:300],
        encode(picture("a", 40), "JPEG")[:500],
        encode(picture("a", 40), "WEBP")[:200],
        encode(picture("a", 40), "BMP")[:200],
        encode(picture("a", 40), "TIFF")[:200],
        encode(picture("a", 40), "GIF")[:200],
        encode(picture("a", 40), "PPM")[:200],
        encode(picture("a", 40), "ICO"),
    ],
    ids=[
        "empty",
        "text",
        *(f"half a {kind}" for kind in ("PNG", "JPEG", "WebP", "BMP", "TIFF", "GIF", "PPM")),
        "ICO",
    ],
)
def test_a_damaged_file_is_named_in_one_line(data):
    with pytest.raises(UserError) as caught:
        decode(data, SIZE, "photos/cat/7.jpg")
    message = str(caught.value)
    assert message.startswith("photos/cat/7.jpg: can't be read as an image: ")
    assert "\n" not in message


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
