"""The command line: `contrastive`, also as `python -m pipelines`.

Modules named `commands` say what each command takes; they import what does the work when it is called, so that
help and completion come at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.exceptions import TyperException

from components.shared.errors import UserError, exit_cleanly
from components.shared.installed import warn_if_stale
from pipelines import commands
from pipelines.command_line import NAME, new_group
from pipelines.inference import commands as inference
from pipelines.kubeflow import commands as kubeflow
from pipelines.registry import commands as registry
from pipelines.review import commands as review

app = new_group("Compose, run and review pipelines that learn from unlabelled images.", completion=True)
app.add_typer(commands.app)
app.add_typer(inference.app)
app.add_typer(inference.label_app, name="label")
app.add_typer(kubeflow.app, name="kubeflow")
app.add_typer(review.app, name="review")
app.add_typer(registry.app, name="registry")
app.add_typer(review.webhook_app, name="webhook")


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run one command.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        Exit status; None is success.

    Raises:
        UserError: the command line, or what it asks for, can't be done.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context(NAME, list(sys.argv[1:] if arguments is None else arguments)) as context:
            status: int | None = command.invoke(context)
            return status
    except typer.Exit as left:
        return left.exit_code
    except TyperException as error:
        message = error.format_message().strip().removesuffix(".")
        if not message:
            # no command was given, and the help is printed
            return error.exit_code
        path = getattr(getattr(error, "ctx", None), "command_path", NAME)
        raise UserError(f"{message}; see {path} --help") from None


def cli() -> None:
    """Run the process's command line, and exit."""
    if f"_{NAME.upper()}_COMPLETE" in os.environ:
        # the shell asks what may follow
        app(prog_name=NAME)
    warn_if_stale()
    exit_cleanly(main)


if __name__ == "__main__":
    cli()
