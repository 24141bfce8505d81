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
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def printable(text: str | Path) -> str:
    """A path or message in one line that any terminal shows: unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under headings: on a terminal as wide as it is, elsewhere a line per row."""
    # only here: the line must stay light
    from rich import console, table, text

    columns = [table.Column(name, overflow="fold") for name in headings]
    grid = table.Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        grid.add_row(*map(text.Text, row))
    console.Console(width=None if sys.stdout.isatty() else 10_000).print(grid)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let each parameter that is a dataclass stand for options: one per field, annotated as typer wants it.

    Several commands share such a dataclass; each is called with an object of it.
    """
    own = _parameters(command)
    groups: dict[str, Any] = {one.name: one.annotation for one in own if dataclasses.is_dataclass(one.annotation)}
    parameters = [part for one in own for part in (_parameters(groups[one.name]) if one.name in groups else [one])]

    @functools.wraps(command)
    def with_groups(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
        return command(**given)

    with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_groups


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters, by keyword only, their annotations resolved."""
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])
        for name, parameter in inspect.signature(function).parameters.items()
    ]
