"""What all commands share: how groups look, how options are shared, what an override is, how tables are printed."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

NAME = "contrastive"
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="OVERRIDE", help="such as data=cifar10 or runtime.epochs=200", show_default=False),
]


def new_group(about: str, completion: bool = False) -> typer.Typer:
    """A group of commands.

    Args:
        about: for its help.
        completion: whether it has the options that install the shell's completion.
    """
    return typer.Typer(
        help=about,
        no_args_is_help=True,
        add_completion=completion,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def printable(text: str | Path) -> str:
    """A path or message in one line that any terminal shows: unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under headings: on a terminal as wide as it is, elsewhere a line per row."""
    if sys.stdout.isatty():
        from rich import box, console, table, text

        grid = table.Table(*headings, box=box.SIMPLE_HEAD)
        for row in rows:
            grid.add_row(*map(text.Text, row))
        console.Console().print(grid)
        return
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in [headings, *rows]:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let each parameter that is a dataclass stand for options: one per field, annotated as typer wants it.

    Several commands share such a dataclass; each is called with an object of it.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for name, annotation, default in _parameters(command):
        if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            groups[name] = annotation
            found = _parameters(annotation)
        else:
            found = [(name, annotation, default)]
        parameters += [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, annotation, default in found
        ]

    @functools.wraps(command)
    def with_groups(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        return command(**given)

    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_groups


def _parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of each parameter."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    return [(name, hints[name], parameter.default) for name, parameter in signature.parameters.items()]
