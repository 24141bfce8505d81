"""What is expected of a dataset: each `Expectation` says in one place what is checked, where and how severely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from components.shared.artifacts import UNLABELLED, Manifest
from components.shared.checks.image_table import LABELLED, shape_text
from components.shared.params.schema import ValidationParams

Table = Literal["arrays", "images", "splits", "classes"]
DIGITS = 6


@dataclass(frozen=True)
class Expectation:
    """One thing that must hold for a column of a table.

    Attributes:
        name: how messages and the verdict call it.
        table: the table it is about.
        column: the column.
        severity: "critical" stops the pipeline, "warning" is reported.
        meaning: what it is for, in one sentence.
        low: smallest value allowed.
        high: largest value allowed.
        allowed: the only values allowed.
        forbidden: values that are not allowed.
        of_mean: `low` and `high` are about the column's mean, not about each row.
        splits: rows of these splits only; empty means all.
        parameter: the parameter that sets the bound.
        words: a column that tells the value in words.
        expected: what is expected in words, where the bounds alone would mislead.
    """

    name: str
    table: Table
    column: str
    severity: Literal["critical", "warning"]
    meaning: str
    low: float | None = None
    high: float | None = None
    allowed: tuple[Any, ...] = ()
    forbidden: tuple[Any, ...] = ()
    of_mean: bool = False
    splits: tuple[str, ...] = ()
    parameter: str = ""
    words: str = ""
    expected: str = ""

    @property
    def threshold(self) -> str:
        """The bound in words, with the parameter that sets it."""
        if self.expected:
            text = self.expected
        elif self.allowed or self.forbidden:
            text = " or ".join(str(value) for value in self.allowed or self.forbidden)
            text = text if self.allowed else f"not {text}"
        elif self.low is not None and self.high is not None:
            text = f"{_format(self.low)} to {_format(self.high)}"
        else:
            text = f"at least {_format(self.low)}" if self.low is not None else f"at most {_format(self.high)}"
        return f"{text} (validation.{self.parameter})" if self.parameter else text

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that it is about."""
        return table[table["split"].isin(self.splits)] if self.splits else table

    def worst(self, rows: pd.DataFrame) -> tuple[str, Any, str]:
        """Where it is furthest from holding, or nearest to failing: the place, the value there, that in words."""
        values = rows[self.column]
        if self.of_mean:
            mean = _python_value(values.mean())
            return ", ".join(self.splits), mean, _format(mean)
        if self.allowed or self.forbidden:
            excess = ~values.isin(self.allowed) if self.allowed else values.isin(self.forbidden)
        elif self.low is None:
            excess = values
        elif self.high is None:
            excess = -values
        else:
            excess = (self.low - values).combine(values - self.high, max)
        row = rows.iloc[int(excess.to_numpy().argmax())]
        value = _python_value(row[self.column])
        place = {"images": ", image {row}", "classes": ", class {class_name}"}.get(self.table, "").format(**row)
        return row["split"] + place, value, str(row[self.words]) if self.words else _format(value)


@dataclass(frozen=True)
class Outcome:
    """What became of an expectation: where the value was worst, which it was, and how many rows failed."""

    expectation: Expectation
    success: bool
    subject: str
    observed: Any
    words: str
    failures: int

    def line(self) -> str:
        """In one line: expectation, place, value and bound."""
        many = f" and {self.failures - 1:,} more" if self.failures > 1 else ""
        what = self.expectation
        return f"{what.name}: {self.subject}{many}: {what.column} = {self.words}; expected {what.threshold}"

    def verdict(self) -> dict[str, Any]:
        """What `verdict.json` says about it: the content of the data, not the bounds."""
        return {
            "expectation": self.expectation.name,
            "severity": self.expectation.severity,
            "success": self.success,
            "subject": self.subject,
            "observed": self.observed,
            "failures": self.failures,
        }


def array_expectations(manifest: Manifest) -> list[Expectation]:
    """The arrays on disk are what the manifest promises; without that nothing else can be looked at."""
    promised = (
        ("image_dtype", "Pixels are stored as whole numbers of 0 to 255.", "uint8"),
        ("image_shape", "Images have the manifest's size and three channels.", shape_text(manifest.image_shape)),
        ("label_dtype", "Labels are stored as whole numbers.", "int64"),
        ("label_shape", "There is one label per image.", "scalar"),
        ("missing_images", "There are as many images as the manifest says.", 0),
        ("missing_labels", "There are as many labels as the manifest says.", 0),
    )
    there = "There is something to learn from."
    return [
        *(
            Expectation(f"{column}_fits", "arrays", column, "critical", meaning, allowed=(value,))
            for column, meaning, value in promised
        ),
        Expectation(
            "training_images_exist",
            "arrays",
            "images",
            "critical",
            there,
            low=1,
            splits=("train",) if manifest.class_names else ("unlabelled",),
        ),
    ]


def content_expectations(
    tables: Mapping[Table, pd.DataFrame], classes: int, params: ValidationParams
) -> list[Expectation]:
    """What the images are held against: each on its own, each split as a whole, each class of a labelled split.

    Args:
        tables: as `components.shared.checks.image_table` measures them.
        classes: number of classes.
        params: the bounds.
    """

    def at_least(parameter: str) -> dict[str, Any]:
        return {"low": getattr(params, parameter), "parameter": parameter}

    def at_most(parameter: str) -> dict[str, Any]:
        return {"high": getattr(params, parameter), "parameter": parameter}

    within: dict[str, Any] = {"low": UNLABELLED, "high": classes - 1, "expected": f"0 to {classes - 1}"}
    present = set(tables["splits"]["split"])
    expectations = [
        Expectation("labels_within_classes", "images", "label", "critical",
            "A label is the number of a class; a missing one has an expectation of its own.",
            splits=LABELLED, **within),
        Expectation("labelled_images_have_labels", "images", "label", "critical",
            "No image of a labelled split is unlabelled.", forbidden=(UNLABELLED,), splits=LABELLED),
        Expectation("unlabelled_images_have_none", "images", "label", "critical",
            "Images of the unlabelled split have no label.", allowed=(UNLABELLED,), splits=("unlabelled",)),
        Expectation("no_blank_images", "images", "std", "warning",
            "An image of a single colour shows nothing to learn from.", **at_least("min_pixel_std")),
        Expectation("few_blank_images", "splits", "blank_fraction", "critical",
            "Many blank images mean that reading the images went wrong.", **at_most("max_blank_fraction")),
        Expectation("test_images_are_new", "splits", "copied_fraction", "critical",
            "A test image that is also in another split makes the test accuracy too high.",
            splits=("test",), words="copies", **at_most("max_test_overlap")),
        Expectation("validation_images_are_new", "splits", "copied_fraction", "warning",
            "A validation image that is also in another split misleads the choice of models.",
            splits=("validation",), words="copies", **at_most("max_duplicate_fraction")),
        Expectation("few_repeated_images", "splits", "repeated_fraction", "warning",
            "Repeated images count several times, and contrast takes them for different ones.",
            **at_most("max_duplicate_fraction")),
        Expectation("balanced_classes", "splits", "imbalance", "warning",
            "Largest class over smallest: training favours the large ones, and accuracy hides the small ones.",
            splits=LABELLED, **at_most("max_class_imbalance")),
        Expectation("class_present", "classes", "images", "critical",
            "Each class has images in train, validation and test.", low=1),
        Expectation("enough_images", "classes", "images", "critical",
            "Each class has enough training images.", splits=("train",), **at_least("min_images_per_class")),
        Expectation("class_counts_fit", "classes", "missing_images", "critical",
            "Each class has as many images as the manifest says.", allowed=(0,)),
    ]  # fmt: skip
    if {"train", "test"} <= present:
        expectations.append(_brightness(tables["splits"].set_index("split"), params.max_brightness_drift))
    # of an empty split as a whole nothing can be asked; that it is empty is found per class, where there are any
    empty = [e for e in expectations if e.splits and not present & set(e.splits)]
    return [
        e
        for e in expectations
        if (classes or e.table != "classes") and (e not in empty or (classes and e.table != "splits"))
    ]


def _brightness(splits: pd.DataFrame, drift: float) -> Expectation:
    """Test images look like training images on average."""
    train, images = splits.loc["train"], splits["images"]
    # three standard errors more, so that a small split does not raise the alarm by chance
    width = train["deviation"] * (drift + 3 * (1 / images["train"] + 1 / images["test"]) ** 0.5)
    low, high = (round(float(train["mean"] + side * width), 3) for side in (-1, 1))
    return Expectation(
        "brightness_of_test_like_train", "images", "mean", "warning",
        "Test images are as bright on average as training images; else they were taken in another way.",
        low=low, high=high, of_mean=True, splits=("test",), parameter="max_brightness_drift",
    )  # fmt: skip


def _python_value(value: Any) -> Any:
    """A NumPy number as Python's; fractions rounded, so that the last bit does not change a file."""
    value = value.item() if hasattr(value, "item") else value
    return round(value, DIGITS) if isinstance(value, float) else value


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
