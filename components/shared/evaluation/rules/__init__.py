"""What the gate asks of a winner: one module per rule, found by its name.

A rule has `ORDER`, its place among the others; `Options`, its thresholds in `conf/gate/`; `WEAKER`, which way each
of them asks less; and `check(evidence, options)`, which answers with a `Check` of the module's name.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def rules() -> dict[str, ModuleType]:
    """Name → module of every rule, in the order in which they are asked."""
    found = {module.name: import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)}
    return dict(sorted(found.items(), key=lambda item: item[1].ORDER))
