"""What interrupted trainings have left on a cluster's claim and nobody has used since.

A training that ends well removes what it kept; one that failed and is not repeated with the same options leaves it.
"""

from __future__ import annotations

import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from components.shared.errors import UserError
from components.shared.training.checkpoints import Checkpoint


def remove_unused(folder: Path, days: float) -> None:
    """Remove what no training of a step has used for so many days: states, and finished trainings.

    The state that a running training has claimed stays, however old it is; so does what this user may not remove.

    Args:
        folder: of the step's.
        days: since it was written.
    """
    used: dict[str, float] = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        # of a state also its lock, and what killed writers left of it
        key = path.name.lstrip(".").partition(".")[0]
        with suppress(FileNotFoundError):  # by whoever finished
            inside = path.iterdir() if path.is_dir() else ()
            last = max(each.stat().st_mtime for each in (path, *inside))
            used[key] = max(last, used.get(key, 0.0))
    before = time.time() - days * 24 * 3600
    for key in (key for key, last in used.items() if last < before):
        if (folder / key).is_dir():
            # never a folder that is not ours
            if re.fullmatch(r"[0-9a-f]{32}", key):
                shutil.rmtree(folder / key, ignore_errors=True)
            continue
        with suppress(UserError, OSError), Checkpoint(key, folder) as state:
            if state.claim():
                state.remove()
