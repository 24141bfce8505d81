"""What all tests of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from kfp.dsl import pipeline_task


@pytest.fixture(autouse=True, scope="session")
def quick_names_of_callers() -> Iterator[None]:
    """KFP looks up its caller's name by `inspect.stack()[1][3]` at each setting of a task.

    With all that a test process has imported, to describe the whole stack took 15 s for each pipeline.
    """

    def stack() -> list[tuple[None, None, None, str]]:
        asking = sys._getframe(1)
        return [(None, None, None, frame.f_code.co_name) for frame in (asking, asking.f_back) if frame]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_task, "inspect", SimpleNamespace(stack=stack))
        yield
