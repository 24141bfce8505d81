"""How Great Expectations checks a dataset's tables, and what became of each expectation."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.core.run_identifier import RunIdentifier
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.exceptions import ExpectationNotFoundError
from great_expectations.expectations.registry import (
    get_expectation_impl,
    list_registered_expectation_implementations,
)
from great_expectations.expectations.row_conditions import Column

from components.shared.checks.expectations import Expectation, Outcome, Table
from components.shared.errors import UserError, first_line
from components.shared.params.explain import did_you_mean
from components.shared.templates import render

TEMPLATES = Path(__file__).with_name("templates")
_HEAD = re.compile(r"<head>")
# whatever a page would fetch from another server, and the bars that advertise
_FETCHED = re.compile(
    r"<link\b[^>]*>|<script\b[^>]*\bsrc=[\"']https?:[^>]*>\s*</script>|<footer\b.*?</footer>"
    r"|<img\b[^>]*\bsrc=[\"']https?:[^>]*>|background: url\('https?:[^;]*;",
    re.DOTALL,
)
# what names a row of a table
KEYS: dict[Table, list[str]] = {
    "images": ["split", "row", "path"],
    "classes": ["split", "class_name"],
    "near_copies": ["path", "twin_path"],
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
        self._checked: list[Table] = []
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)
        for name_of_site in list(self._context.get_site_names()):
            self._context.delete_data_docs_site(name_of_site)
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())}
        site: dict[str, Any] = {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store}
        site["site_index_builder"] = {"class_name": "DefaultSiteIndexBuilder"}
        self._context.add_data_docs_site("docs", site)
        self._source = self._context.data_sources.add_pandas("dataset")

    def check(self, name: Table, table: pd.DataFrame, expectations: Sequence[Expectation]) -> list[Outcome]:
        """Check one table; call it once for each.

        Args:
            name: of the table.
            table: its rows.
            expectations: those about it, in the order of the outcomes.
        """
        self._checked.append(name)
        batch = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
        suite = gx.ExpectationSuite(name, expectations=[_translate(e) for e in expectations])
        definition = gx.ValidationDefinition(name=name, data=batch, suite=self._context.suites.add(suite))
        answer = self._context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": table},
            run_id=self._run,
            result_format={
                "result_format": "SUMMARY",
                "partial_unexpected_count": 20,
                "unexpected_index_column_names": KEYS.get(name, ["split"]),
            },
        )
        answers = {result.expectation_config.meta["name"]: result for result in answer.results}
        whole = batch.get_batch({"dataframe": table})
        outcomes = []
        for expectation in expectations:
            found, failed = answers[expectation.name], table.iloc[:0]
            if found.result.get("unexpected_count"):
                # asked again for all rows, which would swell the pages
                every = whole.validate(_translate(expectation), result_format="COMPLETE").result
                failed = table.loc[every.get("unexpected_index_list") or []]
            outcomes.append(_outcome(expectation, found, table, failed))
        return outcomes

    def write_docs(self) -> None:
        """Write the Data Docs of everything that was checked, pages that need no other server.

        Raises:
            OSError: there is no room for them.
        """
        # Great Expectations logs that it could not write a page, with a traceback, and goes on
        with _quiet("great_expectations"):
            self._context.build_data_docs(["docs"])
        pages = [self._docs / "index.html", *(self._docs / f"expectations/{name}.html" for name in self._checked)]
        pages += [self._docs / (self.page_of(name) or f"validations/{name}") for name in self._checked]
        for page in pages:
            if not page.is_file() or "</html>" not in page.read_text(encoding="utf-8"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(page))
        # fonts, logos and moving pictures of guides, which no page needs
        shutil.rmtree(self._docs / "static", ignore_errors=True)
        style = render(TEMPLATES / "style.html.j2")
        for page in self._docs.rglob("*.html"):
            text = _FETCHED.sub("", page.read_text(encoding="utf-8"))
            page.write_text(_HEAD.sub(lambda found: f"{found[0]}\n{style}", text, count=1), encoding="utf-8")

    def page_of(self, name: str) -> str | None:
        """Where a table's page lies below the folder of the site, None if it was not checked."""
        # validations/<table>/<run>/<time>/<asset>.html, one run per site
        pages = sorted((self._docs / "validations" / name).rglob("*.html"))
        return pages[0].relative_to(self._docs).as_posix() if pages else None


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _translate(expectation: Expectation) -> Any:
    """The same as an object of Great Expectations."""
    where = f"validation.expectations.{expectation.name}"
    values: dict[str, Any] = {
        **expectation.options,
        "severity": expectation.severity,
        "meta": {"name": expectation.name},
        "notes": f"{expectation.name}: {expectation.meaning}",
    }
    if expectation.column:
        values["column"] = expectation.column
    if expectation.splits:
        values["row_condition"] = Column("split").is_in(list(expectation.splits))
    try:
        return get_expectation_impl(expectation.type)(**values)
    except ExpectationNotFoundError:
        meant = did_you_mean(expectation.type, list_registered_expectation_implementations())
        raise UserError(f"{where}.type = {expectation.type}: Great Expectations has none{meant}") from None
    except (ValueError, TypeError) as error:
        problems = [" ".join(line.split()) for line in str(error).splitlines()[1:3]]
        raise UserError(f"{where}: {expectation.type}: {': '.join(problems) or first_line(error)}") from None


def _outcome(expectation: Expectation, answer: Any, table: pd.DataFrame, failed: pd.DataFrame) -> Outcome:
    raised = answer.exception_info or {}
    # one for the expectation, or one for each measure that it needs
    for info in [raised] if "raised_exception" in raised else raised.values():
        if info["raised_exception"]:
            why = first_line(info["exception_message"])
            raise UserError(f"validation.expectations.{expectation.name}: can't be asked: {why}")
    success, rows = bool(answer.success), expectation.rows(table)
    subject, observed, words = "", None, "none"
    if not rows.empty:
        known = expectation.worst(rows)
        if known is None:
            row = failed.iloc[0] if len(failed) else None
            found = answer.result.get("observed_value", None if row is None else row.get(expectation.column))
            place = "" if row is None else expectation.place(row)
            known = place, None if found is None else str(found), str(found)
        subject, observed, words = known
    failures = int(answer.result.get("unexpected_count", not success))
    return Outcome(expectation, success, subject, observed, words, failures, failed)
