"""One command line for everything that calls the steps: `python -m pipelines COMMAND`.

Each command is one module beside this file with a docstring whose first line says what it does, and two functions:
`arguments(parser)` declares its options, `main(options)` does it.
"""

from __future__ import annotations

import argparse
from importlib import import_module

from components.shared.errors import exit_cleanly

COMMANDS = (
    "cancel",
    "compile",
    "compose",
    "embed",
    "experiment",
    "health",
    "predict",
    "resend",
    "review",
    "run",
    "schedule",
    "schedules",
    "status",
    "submit",
    "summary",
    "unschedule",
    "webhook",
)


def main(arguments: list[str] | None = None) -> int | None:
    """Run one command.

    Args:
        arguments: of the command line; None takes the process's own.

    Returns:
        Exit status; None is success.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Compose, run and review pipelines.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"pipelines.{name}")
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
