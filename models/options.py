"""Options: frozen groups of values, whose names, types and ranges are written here in `models` and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


def within(**limits: float) -> Any:
    """A field with limits: `gt`, `ge`, `lt`, `le` of a number, `min_length` of a sequence."""
    return field(metadata=limits)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(within,))
def options(cls: type[T]) -> type[T]:
    """Make a class a group of options: a frozen dataclass without defaults, which stand in `conf/` only.

    What reads options from a file hands the class to pydantic, which takes types, limits and the configuration
    from here: unknown names, other types (`true` for 1) and NaN are refused. What one field's limits can't say, the
    class checks in `__post_init__`, with a ValueError `name = value: must …`.
    """
    cls.__pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def require_items(name: str, values: tuple[float, ...], low: float, high: float) -> None:
    """Refuse a sequence with an item that is not above `low`, or above `high`.

    Raises:
        ValueError: names the sequence and its values.
    """
    if not all(low < value <= high for value in values):
        raise ValueError(f"{name} = {list(values)}: must be numbers > {low:g} and ≤ {high:g}")
