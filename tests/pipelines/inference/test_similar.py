"""The page of the nearest images: which, in which order, and that it needs nothing else."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from components.shared.errors import UserError
from pipelines.__main__ import main
from tests.helpers.image_trees import encode

COLORS = {"red": (250, 5, 5), "dark red": (160, 5, 5), "orange": (240, 120, 5), "blue": (5, 5, 250)}


@pytest.fixture
def here(in_tmp):
    """Images of one colour each, and an encoder whose features are the mean colour."""
    import keras

    images = keras.Input((8, 8, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    keras.Model(images, pooled).save(in_tmp / "mean.keras")
    (in_tmp / "all").mkdir()
    for name, color in COLORS.items():
        (in_tmp / "all" / f"{name}.png").write_bytes(encode(np.full((20, 30, 3), color, np.uint8)))
    return in_tmp


def similar(*arguments) -> int:
    return main(["similar", *map(str, arguments), "--model", "mean.keras"])


def test_the_nearest_come_first_and_the_query_is_left_out(here, capsys):
    (here / "all" / "<b>.png").write_bytes((here / "all" / "blue.png").read_bytes())
    (here / "all" / "broken.png").write_bytes(b"no image")
    assert similar("all/red.png", "all", "--top", 3) == 1
    out = capsys.readouterr().out
    printed = [line.rsplit("  ", 1) for line in out.splitlines() if line.startswith("all/")]
    assert [name for name, _ in printed][:2] == ["all/dark red.png", "all/orange.png"]
    assert float(printed[0][1]) == pytest.approx(0.9998, abs=2e-4)
    assert "similar.html: the 3 nearest of 6 images by mean.keras" in out
    page = (here / "similar.html").read_text()
    assert re.findall(r"<b>([0-9.]+)</b>", page)[0] == "1.000"
    names = [unescape(name) for name in re.findall(r'class="name">([^<]*)<', page)]
    assert names == ["all/red.png", *[name for name, _ in printed]]
    assert "<b>.png" not in page
    # pictures within it, nothing from elsewhere
    assert page.count("data:image/webp;base64,") == 4
    assert re.search(r"https?://|<script|<link", page) is None


def test_rows_of_a_parquet_file_are_searched_and_shown(here, capsys):
    contents = [{"bytes": path.read_bytes(), "path": None} for path in sorted((here / "all").iterdir())]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    parquet.write_table(pa.table({"image": pa.array(contents, kind)}), "rows.parquet")
    assert similar("rows.parquet#3", "rows.parquet", "--top", 1, "--out", "page.html") == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("rows.parquet#1  0.999")
    assert "rows.parquet#1" in (here / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["all/red.png", "all", "--out", "page.pdf"], r"page\.pdf: must be an \.html file"),
        (["all/red.png", "all", "--out", "no/page.html"], "must be an .html file in a folder that is there"),
        (["all", "all"], "all: names 4 images; give one"),
        (["bad.png", "all"], r"bad\.png: can't be read as an image"),
        (["all/red.png", "all/red.png"], "holds no image but the query"),
    ],
)
def test_wrong_usage_is_one_line(here, arguments, words):
    (here / "bad.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=words):
        similar(*arguments)
    assert not list(here.glob("*.html"))
