"""What is expected of a dataset, and how Great Expectations checks it.

An `Expectation` says in one place what is checked, where and how severely; `Checker` hands each table's to
Great Expectations and keeps its Data Docs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.shared.artifacts import UNLABELLED, Manifest
from components.shared.checks.data_docs import make_readable
from components.shared.checks.image_table import LABELLED, shape_text
from components.shared.params.schema import ValidationParams

if TYPE_CHECKING:
    import pandas as pd

Table = Literal["arrays", "images", "splits", "classes"]
# what names a row of each table
KEYS: dict[Table, tuple[str, ...]] = {
    "arrays": ("split",),
    "images": ("split", "row"),
    "splits": ("split",),
    "classes": ("split", "class_name"),
}
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
            text = f"{_short(self.low)} to {_short(self.high)}"
        else:
            text = f"at least {_short(self.low)}" if self.low is not None else f"at most {_short(self.high)}"
        return f"{text} (validation.{self.parameter})" if self.parameter else text

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that it is about."""
        return table[table["split"].isin(self.splits)] if self.splits else table

    def worst(self, rows: pd.DataFrame) -> tuple[str, Any, str]:
        """Where it is furthest from holding, or nearest to failing: the place, the value there, that in words."""
        values = rows[self.column]
        if self.of_mean:
            mean = _plain(values.mean())
            return ", ".join(self.splits), mean, _short(mean)
        if self.allowed or self.forbidden:
            excess = ~values.isin(self.allowed) if self.allowed else values.isin(self.forbidden)
        elif self.low is None:
            excess = values
        elif self.high is None:
            excess = -values
        else:
            excess = (self.low - values).combine(values - self.high, max)
        row = rows.iloc[int(excess.to_numpy().argmax())]
        value = _plain(row[self.column])
        return _subject(self.table, row), value, str(row[self.words]) if self.words else _short(value)


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
    shape = shape_text((manifest.image_size, manifest.image_size, 3))
    fits = [
        Expectation(f"{column}_fits", "arrays", column, "critical", meaning, allowed=(value,))
        for column, meaning, value in (
            ("image_dtype", "Pixels are stored as whole numbers of 0 to 255.", "uint8"),
            ("image_shape", "Images have the manifest's size and three channels.", shape),
            ("label_dtype", "Labels are stored as whole numbers.", "int64"),
            ("label_shape", "There is one label an image.", "scalar"),
            ("missing_images", "There are as many images as the manifest says.", 0),
            ("missing_labels", "There are as many labels as the manifest says.", 0),
        )
    ]
    there = Expectation(
        "training_images_exist", "arrays", "images", "critical", "There is something to learn from.",
        low=1, splits=("train",),
    )  # fmt: skip
    return [*fits, there]


def image_expectations(classes: int, params: ValidationParams) -> list[Expectation]:
    """Each image on its own: its label fits its split, and something is to be seen."""
    return [
        Expectation(
            "labels_within_classes", "images", "label", "critical",
            "A label is the number of a class; a missing one has an expectation of its own.",
            low=UNLABELLED, high=classes - 1, splits=LABELLED, expected=f"0 to {classes - 1}",
        ),
        Expectation(
            "labelled_images_have_labels", "images", "label", "critical",
            "No image of a labelled split is unlabelled.", forbidden=(UNLABELLED,), splits=LABELLED,
        ),
        Expectation(
            "unlabelled_images_have_none", "images", "label", "critical",
            "Images of the unlabelled split have no label.", allowed=(UNLABELLED,), splits=("unlabelled",),
        ),
        Expectation(
            "no_blank_images", "images", "std", "warning",
            "An image of a single colour shows nothing to learn from.",
            low=params.min_pixel_std, parameter="min_pixel_std",
        ),
    ]  # fmt: skip


def split_expectations(splits: pd.DataFrame, params: ValidationParams) -> list[Expectation]:
    """Each split as a whole: blank and repeated images, leaks into validation and test, balance, drift."""
    found = [
        Expectation(
            "few_blank_images", "splits", "blank_fraction", "critical",
            "Many blank images mean that reading the images went wrong.",
            high=params.max_blank_fraction, parameter="max_blank_fraction",
        ),
        Expectation(
            "test_images_are_new", "splits", "copied_fraction", "critical",
            "A test image that is also in another split makes the test accuracy too high.",
            high=params.max_test_overlap, splits=("test",), parameter="max_test_overlap", words="copies",
        ),
        Expectation(
            "validation_images_are_new", "splits", "copied_fraction", "warning",
            "A validation image that is also in another split misleads the choice of models.",
            high=params.max_duplicate_fraction, splits=("validation",), parameter="max_duplicate_fraction",
            words="copies",
        ),
        Expectation(
            "few_repeated_images", "splits", "repeated_fraction", "warning",
            "Repeated images count several times, and contrast takes them for different ones.",
            high=params.max_duplicate_fraction, parameter="max_duplicate_fraction",
        ),
        Expectation(
            "balanced_classes", "splits", "imbalance", "warning",
            "Largest class over smallest: training favours the large ones, and accuracy hides the small ones.",
            high=params.max_class_imbalance, splits=LABELLED, parameter="max_class_imbalance",
        ),
    ]  # fmt: skip
    # of an empty split nothing can be asked here; that it is empty is found class by class
    return [e for e in found if not e.splits or splits["split"].isin(e.splits).any()]


def drift_expectations(splits: pd.DataFrame, params: ValidationParams) -> list[Expectation]:
    """Test images look like training images on average; nothing where one of them is empty."""
    by_split: dict[Any, Any] = {row["split"]: row for row in splits.to_dict("records")}
    if not {"train", "test"} <= set(by_split):
        return []
    train, test = by_split["train"], by_split["test"]
    # three standard errors more, so that a small split does not raise the alarm by chance
    chance = 3 * (1 / train["images"] + 1 / test["images"]) ** 0.5
    width = float(train["deviation"] * (params.max_brightness_drift + chance))
    return [
        Expectation(
            "brightness_of_test_like_train", "images", "mean", "warning",
            "Test images are as bright on average as training images; else they were taken in another way.",
            low=round(train["mean"] - width, 3), high=round(train["mean"] + width, 3), of_mean=True,
            splits=("test",), parameter="max_brightness_drift",
        )
    ]  # fmt: skip


def class_expectations(params: ValidationParams) -> list[Expectation]:
    """Each class in each labelled split: that it is there, as often as said, and often enough to learn it."""
    return [
        Expectation(
            "class_present", "classes", "images", "critical",
            "Each class has images in train, validation and test.", low=1,
        ),
        Expectation(
            "enough_images", "classes", "images", "critical",
            "Each class has enough training images.",
            low=params.min_images_per_class, splits=("train",), parameter="min_images_per_class",
        ),
        Expectation(
            "class_counts_fit", "classes", "missing_images", "critical",
            "Each class has as many images as the manifest says.", allowed=(0,),
        ),
    ]  # fmt: skip


class Checker:
    """Checks tables with Great Expectations and writes its Data Docs, a static site.

    Args:
        docs: folder of the site, to be made.
        name: of the dataset, for the site.
    """

    def __init__(self, docs: Path, name: str):
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "False")  # it is read once, at the import
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self._run = RunIdentifier(run_name=name)
        self._docs = docs
        self._failures: dict[str, list[str]] = {}
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        for site in list(self._context.get_site_names()):
            self._context.delete_data_docs_site(site)
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        self._context.add_data_docs_site(
            "docs",
            {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": store,
                "site_index_builder": index,
            },
        )
        self._source = self._context.data_sources.add_pandas("dataset")

    def check(self, name: Table, table: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Outcome]:
        """Check one table; call it once for each.

        Args:
            name: of the table.
            table: its rows.
            expectations: those about it, in the order of the outcomes.
        """
        import great_expectations as gx

        batch = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        suite = gx.ExpectationSuite(name, expectations=[_translate(e) for e in expectations])
        definition = gx.ValidationDefinition(name=name, data=batch, suite=self._context.suites.add(suite))
        answer = self._context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": table},
            run_id=self._run,
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": 20,
                "unexpected_index_column_names": list(KEYS[name]),
            },
        )
        answers = {result.expectation_config.meta["name"]: result for result in answer.results}
        outcomes = [_outcome(e, answers[e.name], table) for e in expectations]
        self._failures[name] = [f"{o.expectation.severity}: {o.line()}" for o in outcomes if not o.success]
        return outcomes

    def write_docs(self) -> None:
        """Write the Data Docs of everything that was checked."""
        self._context.build_data_docs(["docs"])
        make_readable(self._docs, self._failures)


def _translate(expectation: Expectation) -> Any:
    """The same as an object of Great Expectations."""
    from great_expectations import expectations as known
    from great_expectations.expectations.row_conditions import Column

    common: dict[str, Any] = {
        "column": expectation.column,
        "severity": expectation.severity,
        "meta": {"name": expectation.name},
        "notes": f"{expectation.name}: {expectation.meaning}",
    }
    if expectation.splits:
        common["row_condition"] = Column("split").is_in(list(expectation.splits))
    if expectation.allowed:
        return known.ExpectColumnValuesToBeInSet(value_set=list(expectation.allowed), **common)
    if expectation.forbidden:
        return known.ExpectColumnValuesToNotBeInSet(value_set=list(expectation.forbidden), **common)
    between = known.ExpectColumnMeanToBeBetween if expectation.of_mean else known.ExpectColumnValuesToBeBetween
    return between(min_value=expectation.low, max_value=expectation.high, **common)


def _outcome(expectation: Expectation, answer: Any, table: pd.DataFrame) -> Outcome:
    raised = answer.exception_info or {}
    if raised.get("raised_exception", False):
        raise RuntimeError(f"expectation {expectation.name}: {raised['exception_message']}")
    success = bool(answer.success)
    rows = expectation.rows(table)
    subject, observed, words = ("", None, "none") if rows.empty else expectation.worst(rows)
    failures = int(answer.result.get("unexpected_count", not success))
    return Outcome(expectation, success, subject, observed, words, failures)


def _subject(table: Table, row: Any) -> str:
    if table == "images":
        return f"{row['split']}, image {row['row']}"
    if table == "classes":
        return f"{row['split']}, class {row['class_name']}"
    return str(row["split"])


def _plain(value: Any) -> Any:
    """A NumPy number as Python's; fractions rounded, so that the last bit does not change a file."""
    value = value.item() if hasattr(value, "item") else value
    return round(value, DIGITS) if isinstance(value, float) else value


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
