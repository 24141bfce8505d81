"""How Great Expectations checks a dataset's tables, and what became of each expectation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as known
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.row_conditions import Column

from components.shared.checks.data_docs import make_readable
from components.shared.checks.expectations import Expectation, Outcome, Table

# what names a row of each table
KEYS: dict[Table, tuple[str, ...]] = {
    "arrays": ("split",),
    "images": ("split", "row"),
    "splits": ("split",),
    "classes": ("split", "class_name"),
}


class Checker:
    """Checks tables with Great Expectations and writes its Data Docs, a static site.

    Args:
        docs: folder of the site, to be made.
        name: of the dataset, for the site.
    """

    def __init__(self, docs: Path, name: str):
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
