"""Run the Kubeflow pipeline here, without a cluster.

  python -m pipelines run --local data=sample runtime.epochs=20

Kubeflow's local runner runs every step in a process of its own in this environment, as it would be run in a
container. What did not change since an earlier run in the same folder is remembered. It ends with the table that
`make repro` ends with.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import compose

FOLDER = Path(".cache/kubeflow")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="such as data=cifar10 or runtime.epochs=200"
    )
    parser.add_argument(
        "--local", action="store_true", required=True, help="here; `submit` runs it on a cluster instead"
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"outputs and cache; default: {FOLDER}/")
    parser.add_argument("--no-cache", action="store_true", help="run every step")
    parser.add_argument(
        "--data-version", default="", help="names the state of the data; by default compose looks at the source"
    )


def main(options: argparse.Namespace) -> None:
    """Run all steps and print what came out.

    Raises:
        UserError: an override is not allowed, or a step failed; the line names it and its reason.
    """
    from pipelines.kubeflow.local import run_here

    compose(options.overrides)
    report = run_here(options.overrides, options.out, options.data_version, not options.no_cache)
    failed = report.failed()
    if failed is not None:
        raise UserError(f"{failed}: {report.tasks[failed].reason or 'ended without a word'}")
    evaluation = report.folder("evaluate", "evaluation")
    if evaluation is None:
        raise UserError("evaluate: was not run; see the lines above")
    _print(evaluation, report.folder("register", "registration"))


def _print(evaluation: Path, registration: Path | None) -> None:
    from components.shared.artifacts import Result, read_record
    from components.shared.evaluation.gate import read_blessing
    from pipelines.summary import table

    registered = read_record(registration, Result) if registration is not None else None
    report = os.path.relpath(evaluation / "report.html")
    lines = table(read_record(evaluation, Result), read_blessing(evaluation), registered, report)
    print("\n".join(["", *lines]))
