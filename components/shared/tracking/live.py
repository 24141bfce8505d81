"""Curves of trainings that run: tables below `live/`, one a measure, which `dvc plots show` and VS Code draw.

What a training step writes takes its place when it is complete, so that its own curves can't be drawn meanwhile.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from components.shared.artifacts import locked
from components.shared.environment import environment
from components.shared.training.distributed import is_chief

# dvc.yaml lists it among the plots. The folder is in git, its tables are not: DVC minds a plot that is not there
LIVE = Path("live")
# names the step's folder, also to the processes that train side by side
VARIABLE = "CONTRASTIVE_LIVE"
HEAD = "epoch\tseed\tvalue\n"


@contextmanager
def live_curves(step: str) -> Iterator[None]:
    """Let the runs of the block draw their curves in `live/<step>/`, which ends with it.

    Nothing is drawn where that can't be made: an image has no `live/`, and a repository may be read-only.
    """
    folder = LIVE.resolve() / step
    if not (is_chief() and (LIVE / ".gitignore").is_file()):
        yield
        return
    # what a killed run left
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError:
        yield
        return
    try:
        with environment({VARIABLE: str(folder)}):
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def draw(epoch: int, seed: int, values: Mapping[str, float]) -> None:
    """Add a point to the curve of each measure, if curves are drawn; no training fails for want of a picture.

    Args:
        epoch: from 1.
        seed: of the replicate.
        values: measure, in its section as in `train/loss`, → number; what is no number is left out.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    # a file is begun by one of the processes alone
    with suppress(OSError), locked(Path(folder), wait=True):
        for name, value in values.items():
            if math.isfinite(value):
                table = Path(folder) / f"{name}.tsv"
                table.parent.mkdir(exist_ok=True)
                with table.open("a") as file:
                    file.write(f"{'' if file.tell() else HEAD}{epoch}\t{seed}\t{value:.6g}\n")
