"""What is expected of a dataset: each `Expectation` says in one place what is checked, where and how severely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from components.shared.artifacts import Manifest
from components.shared.checks.image_table import shape_text
from components.shared.errors import UserError
from components.shared.params.explain import did_you_mean
from components.shared.params.schema import ExpectationParams, ValidationParams

Table = Literal["arrays", "images", "splits", "classes", "near_copies", "drift"]
DIGITS = 6
BETWEEN, MEAN_BETWEEN = "expect_column_values_to_be_between", "expect_column_mean_to_be_between"
IN_SET, NOT_IN_SET = "expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"
BOUNDS = ("min_value", "max_value")


@dataclass(frozen=True)
class Expectation:
    """One thing that must hold for a table.

    Attributes:
        name: how messages and the verdict call it.
        type: its name in Great Expectations.
        table: the table it is about.
        column: the column; empty where Great Expectations asks for none, or for other ones.
        severity: "critical" stops the pipeline, "warning" is reported.
        meaning: what it is for, in one sentence.
        options: what Great Expectations is told besides, with bounds as numbers.
        splits: rows of these splits only; empty means all.
        parameters: the parameters that set the bounds.
        words: a column that tells the value in words.
        images: the column of the table of images that says which of them it is about, where it is about a split.
    """

    name: str
    type: str
    table: Table
    column: str
    severity: Literal["critical", "warning"]
    meaning: str
    options: Mapping[str, Any] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    words: str = ""
    images: str = ""

    @property
    def threshold(self) -> str:
        """The bound in words, with the parameter that sets it."""
        low, high = (self.options.get(bound) for bound in BOUNDS)
        if self.type in (IN_SET, NOT_IN_SET):
            text = " or ".join(str(value) for value in self.options["value_set"])
            text = text if self.type == IN_SET else f"not {text}"
        elif low is not None and high is not None:
            # a missing label has an expectation of its own
            text = f"{_format(max(low, 0) if self.column == 'label' else low)} to {_format(high)}"
        elif low is not None or high is not None:
            text = f"at least {_format(low)}" if low is not None else f"at most {_format(high)}"
        else:
            said = ", ".join(f"{name} = {value}" for name, value in self.options.items())
            text = self.type.removeprefix("expect_").replace("_", " ") + (f" ({said})" if said else "")
        named = ", ".join(f"validation.{name}" for name in self.parameters)
        return f"{text} ({named})" if named else text

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that it is about."""
        return table[table["split"].isin(self.splits)] if self.splits else table

    def worst(self, rows: pd.DataFrame) -> tuple[str, Any, str] | None:
        """Where it is furthest from holding, or nearest to failing: the place, the value there, that in words.

        None for those of Great Expectations' that nothing is known of here.
        """
        if self.type == MEAN_BETWEEN:
            mean = _python_value(rows[self.column].mean())
            return ", ".join(self.splits) or "all images", mean, _format(mean)
        if self.type not in (BETWEEN, IN_SET, NOT_IN_SET):
            return None
        values = rows[self.column]
        if self.type == BETWEEN:
            if not pd.api.types.is_numeric_dtype(values):
                return None
            low, high = (self.options.get(bound) for bound in BOUNDS)
            sides = [low - values] if low is not None else []
            sides += [values - high] if high is not None else []
            excess = pd.concat(sides, axis=1).max(axis=1)
        else:
            excess = values.isin(self.options["value_set"]) == (self.type == NOT_IN_SET)
        row = rows.iloc[int(excess.astype(float).fillna(float("-inf")).to_numpy().argmax())]
        value = _python_value(row[self.column])
        return self.place(row), value, str(row[self.words]) if self.words else _format(value)

    def place(self, row: pd.Series) -> str:
        """A row's place in words; an image's with its file."""
        place = {
            "images": ", image {row} ({path})",
            "classes": ", class {class_name}",
            "near_copies": ": {path} and {twin_path} ({twin_split})",
        }.get(self.table, "")
        return str(row["split"]) + place.format(**row)


@dataclass(frozen=True)
class Outcome:
    """What became of an expectation.

    Attributes:
        expectation: it.
        success: it holds.
        subject: where the value was worst.
        observed: that value.
        words: the same in words.
        failures: how many rows of the table failed.
        rows: which ones, where Great Expectations tells.
    """

    expectation: Expectation
    success: bool
    subject: str
    observed: Any
    words: str
    failures: int
    rows: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)

    def line(self) -> str:
        """In one line: expectation, place, value and bound."""
        many = f" and {self.failures - 1:,} more" if self.failures > 1 else ""
        what = self.expectation
        where = f"{self.subject}{many}: " if self.subject else ""
        return f"{what.name}: {where}{what.column or what.table} = {self.words}; expected {what.threshold}"

    def verdict(self) -> dict[str, Any]:
        """What `verdict.json` says about each, whether it holds or not: the content of the data, not the bounds."""
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
        ("image_shape", "Images have the manifest's size and channels.", shape_text(manifest.image_shape)),
        ("label_dtype", "Labels are stored as whole numbers.", "int64"),
        ("label_shape", "There is one label per image.", "scalar"),
        ("missing_images", "There are as many images as the manifest says.", 0),
        ("missing_labels", "There are as many labels as the manifest says.", 0),
        ("missing_files", "The file of each image is known.", 0),
    )
    there = "There is something to learn from."
    return [
        *(
            Expectation(f"{column}_fits", IN_SET, "arrays", column, "critical", meaning, {"value_set": [value]})
            for column, meaning, value in promised
        ),
        Expectation(
            "training_images_exist",
            BETWEEN,
            "arrays",
            "images",
            "critical",
            there,
            {"min_value": 1},
            ("train",) if manifest.class_names else ("unlabelled",),
        ),
    ]


def content_expectations(
    tables: Mapping[Table, pd.DataFrame], classes: int, params: ValidationParams
) -> list[Expectation]:
    """What `conf/validation/` asks of the tables that are there.

    Args:
        tables: as `components.shared.checks.image_table` measures them.
        classes: number of classes.
        params: the expectations and their bounds.

    Raises:
        UserError: an expectation names a column, or a bound, that is not there.
    """
    bounds: dict[str, Any] = params.model_dump(exclude={"expectations"})
    facts = {"last_class": classes - 1, **_brightness(tables["splits"].set_index("split"), params)}
    found = []
    for name, wanted in params.expectations.items():
        table = tables.get(wanted.table) if wanted else None
        # one that the owner struck out, or about the drift where there is no champion
        if wanted is None or table is None:
            continue
        _check_columns(name, wanted, table, tables["images"])
        # of an empty split as a whole nothing can be asked; that it is empty is found per class, if there are any
        empty = bool(wanted.splits) and not set(table["split"]) & set(wanted.splits)
        if (empty and (wanted.table == "splits" or not classes)) or (wanted.table == "classes" and not classes):
            continue
        options, parameters = dict(wanted.model_extra or {}), []
        for bound in BOUNDS:
            word = options.get(bound)
            if not isinstance(word, str):
                continue
            if word in bounds:
                parameters.append(word)
            elif word in ("darkest_test", "brightest_test"):
                parameters.append("max_brightness_drift")
            elif word != "last_class":
                known = [*bounds, *facts]
                meant = did_you_mean(word, known) or f"; known are {', '.join(known)}"
                raise UserError(f"validation.expectations.{name}.{bound} = {word}: no such bound{meant}")
            options[bound] = bounds[word] if word in bounds else facts.get(word)
        if any(options.get(bound, 0) is None for bound in BOUNDS):
            continue
        found.append(
            Expectation(
                name=name,
                type=wanted.type,
                table=wanted.table,
                column=wanted.column,
                severity=wanted.severity,
                meaning=wanted.meaning,
                options=options,
                splits=wanted.splits,
                parameters=tuple(dict.fromkeys(parameters)),
                words=wanted.words,
                images=wanted.images,
            )
        )
    return found


def _check_columns(name: str, wanted: ExpectationParams, table: pd.DataFrame, images: pd.DataFrame) -> None:
    for option, column, columns in (
        ("column", wanted.column, table),
        ("words", wanted.words, table),
        ("images", wanted.images, images),
    ):
        known = [str(name) for name in columns]
        if column and column not in known:
            meant = did_you_mean(column, known) or f"; known are {', '.join(known)}"
            raise UserError(f"validation.expectations.{name}.{option} = {column}: no such column{meant}")


def _brightness(splits: pd.DataFrame, params: ValidationParams) -> dict[str, float]:
    """How dark and bright the test images may be on average; nothing where one of the splits is empty."""
    if not {"train", "test"} <= set(splits.index):
        return {}
    train, images = splits.loc["train"], splits["images"]
    # three standard errors more, so that a small split does not raise the alarm by chance
    width = train["deviation"] * (
        params.max_brightness_drift + 3 * (1 / images["train"] + 1 / images["test"]) ** 0.5
    )
    low, high = (round(float(train["mean"] + side * width), 3) for side in (-1, 1))
    return {"darkest_test": low, "brightest_test": high}


def _python_value(value: Any) -> Any:
    """A NumPy number as Python's; fractions rounded, so that the last bit does not change a file."""
    value = value.item() if hasattr(value, "item") else value
    return round(value, DIGITS) if isinstance(value, float) else value


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
