"""The options that docs/methods.md names are there, and so are the sources' pieces of advice that it must hold."""

from __future__ import annotations

import re

import pytest

from components.shared.params.composing import compose_params, options
from components.shared.params.schema import SECTIONS
from tests.helpers.repository import ROOT

TEXT = (ROOT / "docs" / "methods.md").read_text()
TABLE = TEXT[TEXT.index("## Advice of the sources") : TEXT.index("## The methods")]


def names(values, prefix=""):
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from names(value, f"{prefix}{name}.")


def test_options_that_are_named_are_there():
    named = set(re.findall(rf"`?\b((?:{'|'.join(SECTIONS)})\.[a-z_]+(?:\.[a-z_0-9]+)*)", TEXT))
    known = set().union(*(names(compose_params([f"method={name}"])[1]) for name in options()["method"]))
    files = {"encoder.keras"}
    assert len(named) > 20
    assert named - known - files == set()


@pytest.mark.parametrize(
    ("advice", "source"),
    [
        (r"learned\* one ends somewhat too low", "SimCLR example"),
        (r"A wider head helps.*Deeper ones overfitted", "Tutorial 17"),
        (r"Normalisation in the head helps", "SimCLR example"),
        (r"Crops and colour changes are the two that count, and only together", "Tutorial 17"),
        (r"A nonlinear head improves the features below it, and is thrown away", "Tutorial 17"),
        (r"Top 5 is less noisy", "Tutorial 17"),
        (r"Large batches.*many classes.*supervised contrast pays", "SupCon example"),
        (r"Strong augmentation in \*fine-tuning\* reduces overfitting, and shrinks", "SimCLR example"),
        (r"Contrast is changed about each channel's own mean", "Tutorial 17"),
        (r"Judge features with 5 or 10 % of the labels", "NNCLR example"),
        (r"The same number of epochs for both techniques", "SupCon example"),
        (r"weight decay and early stopping", "Implementing SimCLR"),
    ],
)
def test_each_piece_of_advice_stands_in_one_row_with_its_source_and_what_sets_it(advice, source):
    rows = [row.strip().strip("|").split(" | ") for row in TABLE.splitlines() if re.search(advice, row)]
    assert len(rows) == 1 and len(rows[0]) == 3
    _, cited, here = rows[0]
    assert source in cited and here.strip()
