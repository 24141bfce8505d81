"""Telling a user what is wrong with a parameter: its name, its value, what is allowed, and what was meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

Location = tuple[int | str, ...]
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def explain(error: ValidationError, values: Any, where: Sequence[str] = ()) -> str:
    """The first problem that pydantic found, in one line.

    Args:
        error: raised by validating `values`.
        values: the plain values.
        where: names of the groups that they stand in.

    Returns:
        Such as `method.temperature = 0: must be greater than 0`.
    """
    problems = error.errors(include_url=False)
    # a misspelt name is one too many and one missing, of which the first says more
    first = next((problem for problem in problems if problem["type"] in UNKNOWN), problems[0])
    location = _location(first["loc"], values)
    field, kind = ".".join(map(str, (*where, *location))), first["type"]
    if kind == "missing":
        return f"{field}: missing; see conf/ for its values"
    if kind in UNKNOWN:
        names = [*_at(values, location[:-1]), *(p["loc"][-1] for p in problems if p["type"] == "missing")]
        known = [".".join(map(str, (*where, *location[:-1], name))) for name in names if name != location[-1]]
        return f"{field}: no such parameter{did_you_mean(field, known)}; see conf/ for the names"
    if kind == "value_error":  # a check of our own, whose message says all
        return f"{field}.{first['ctx']['error']}" if field else str(first["ctx"]["error"])
    # a value of several types has one problem with each
    same = [p for p in problems if _location(p["loc"], values) == location]
    words = (p["msg"].replace(" after validation", "") for p in same)
    allowed = " or ".join(dict.fromkeys(re.sub(r"^[A-Z]\w+ should ", "", text) for text in words))
    meant = did_you_mean(first["input"], re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", "")))
    return f"{field} = {shown(first['input'])}: must {allowed}{meant}"


def did_you_mean(wrong: Any, names: Iterable[str]) -> str:
    """` (did you mean x?)` with the closest of `names`, or nothing where none is close."""
    names = list(names)
    text = str(wrong)
    close = [name for name in names if name.rsplit(".", 1)[-1] == text][:3]
    # two names in the same group are alike in their first half already
    close = close or difflib.get_close_matches(text, names, n=1, cutoff=0.8 if "." in text else 0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def shown(value: Any) -> str:
    """A value as in JSON, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _location(parts: Location, values: Any) -> Location:
    """Where in the values; without the parts that name a member of a union or say "key", which no user knows."""
    found: list[int | str] = []
    for index, part in enumerate(parts):
        here = _at(values, tuple(found))
        there = isinstance(here, dict) and part != "[key]" and (part in here or index == len(parts) - 1)
        if there or (isinstance(here, list) and isinstance(part, int)):
            found.append(part)
    return tuple(found)


def _at(values: Any, location: Location) -> Any:
    for part in location:
        values = values[part]
    return values
