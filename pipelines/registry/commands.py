"""The commands of `contrastive registry`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from components.shared.errors import UserError
from pipelines.command_line import new_group, shared_options
from pipelines.kubeflow.options import Access
from pipelines.review.commands import ModelOptions

app = new_group("Keep the registry small: remove what is old and what nobody needs.")


@app.callback()
def _group() -> None:
    # typer would take a group of one command for the command
    pass


@app.command()
@shared_options
def prune(
    models: ModelOptions,
    access: Access,
    older_than: Annotated[str, typer.Option(metavar="AGE", help="days or weeks, such as 90d or 12w")] = "90d",
    kubeflow: Annotated[bool, typer.Option("--kubeflow", help="also the pipeline's runs on the cluster")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="remove it; without, nothing is changed")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs: all of it by name")] = False,
) -> None:
    """Show, or remove, old runs, models, checkpoints and Kubeflow runs that nobody needs.

    $ contrastive registry prune --older-than 90d
    $ contrastive registry prune --older-than 90d --kubeflow --delete

    Kept whatever their age, with the runs and files behind them: versions that
    have an alias (champion, challenger, previous champion, or one of your
    own), that were ever champion, or that belong to another model; and the
    ledger of looks. A rejected version stays on record, without its files.
    Where it breaks off, the same command goes on.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})([dw])", older_than)
    if found is None:
        raise UserError(f"--older-than = {older_than}: must be days or weeks, such as 90d or 12w")
    before = datetime.now(UTC) - timedelta(days=int(found[1]) * {"d": 1, "w": 7}[found[2]])
    from pipelines.registry import prune as pruning

    client = None
    if kubeflow:
        from pipelines.kubeflow.client import Client

        client = Client(access)
    pruning.prune(models, before, client, delete, as_json)
