"""How numbers are written, and that nothing else writes them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from components.shared.evaluation.wording import hundredths, mean_and_spread, percent, points, span
from tests.helpers.repository import ROOT


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (percent(0.8812), "88.1 %"),
        (percent(0.985, ".3g"), "98.5 %"),
        (percent(np.float32(0.5), ".0f"), "50 %"),
        (points(0.0712, "+"), "+7.1 points"),
        (points(-0.0991), "-9.9 points"),
        # nothing is no loss
        (points(-0.0004), "0.0 points"),
        (hundredths(-0.0004, "+"), "+0.0"),
        (span((-0.051, 0.105), "+"), "-5.1 to +10.5"),
        (mean_and_spread(np.array([0.7, 0.8])), "75.0 ± 7.1"),
    ],
)
def test_a_share_has_a_blank_and_its_sign_and_a_change_its_sign(written, text):
    assert written == text


def test_nothing_else_writes_per_cent_where_reviewers_read():
    own = re.compile(r"{100 \*|format\(100 \*|:[+.\d]*%}")
    places = [ROOT / "components" / "shared" / name for name in ("checks", "evaluation", "plots", "registry")]
    files = [file for place in (*places, ROOT / "pipelines") for file in sorted(place.rglob("*.[pj]*"))]
    assert {".py", ".j2"} <= {file.suffix for file in files}
    found = [file.name for file in files if file.suffix in (".py", ".j2") and own.search(file.read_text())]
    assert found == ["wording.py"]
