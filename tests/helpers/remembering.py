"""Functions that answer each question once."""

from __future__ import annotations

import copy
from typing import Any


def remembered(function: Any) -> Any:
    """The function, which works once for each question: to compose and to compile take most of a test."""
    known: dict[str, Any] = {}

    def answer(*arguments: Any, **keywords: Any) -> Any:
        key = repr((arguments, keywords))
        if key not in known:
            known[key] = function(*arguments, **keywords)
        return copy.deepcopy(known[key])

    return answer
