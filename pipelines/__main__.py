"""One command line for everything that calls the steps: `python -m pipelines COMMAND`.

Each command is one module with a docstring whose first line says what it does, and two functions:
`arguments(parser)` declares its options, `main(options)` does it.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from components.shared.errors import exit_cleanly

COMMANDS = {
    **{name: f"pipelines.{name}" for name in ("compose", "experiment", "health", "resend", "summary")},
    **{name: f"pipelines.inference.{name}" for name in ("embed", "predict")},
    **{
        name: f"pipelines.kubeflow.commands.{name}"
        for name in ("cancel", "compile", "run", "schedule", "schedules", "status", "submit", "unschedule")
    },
    "review": "pipelines.review.commands",
    "webhook": "pipelines.review.webhook_commands",
}


def main(arguments: list[str] | None = None) -> int | None:
    """Run one command.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        Exit status; None is success.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Compose, run and review pipelines.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, place in sorted(COMMANDS.items()):
        module = import_module(place)
        about = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(command)
        command.set_defaults(main=module.main)
    options = parser.parse_args(arguments)
    status: int | None = options.main(options)
    return status


if __name__ == "__main__":
    exit_cleanly(main)
