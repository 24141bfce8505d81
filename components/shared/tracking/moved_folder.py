"""Artifacts of a SQLite file in a folder that was moved or copied: MLflow keeps whole paths, and they must follow.

MLflow makes a relative place of artifacts absolute when it is handed one, so that it can't keep any.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

from components.shared.tracking.addresses import local_path

# seconds that a step which is logging is waited for
_PATIENCE = 60.0
# every column in which MLflow keeps where artifacts are
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow_folder(file: Path, artifacts: str) -> None:
    """Let a SQLite file know its artifacts where they are now, if it came here with its folder.

    What was below the folder that it was in is sought below the one that it is in; what is still there and not here
    stays as it is. A store that has not moved costs one question.

    Args:
        file: with MLflow's tables.
        artifacts: name of the folder beside it in which the pipeline's experiments keep theirs.
    """
    here = file.parent.resolve()
    with closing(sqlite3.connect(file, timeout=_PATIENCE)) as connection:
        asked = connection.execute(
            "SELECT DISTINCT artifact_location FROM experiments WHERE name LIKE 'contrastive-%'"
        )
        for place in [local_path(location) for (location,) in asked]:
            if place is None or place.name != artifacts or place.parent == here:
                continue
            moved = partial(_moved, before=place.parent, after=here)
            # else the file alone was copied
            if moved(str(place)) == str(place):
                continue
            connection.create_function("moved", 1, moved)
            with connection:
                for table, column in _COLUMNS:
                    connection.execute(f"UPDATE {table} SET {column} = moved({column})")


def _moved(address: str | None, before: Path, after: Path) -> str | None:
    """An address below one folder as that below another, where there is something, or no longer at the old one."""
    place = local_path(address) if address else None
    if address is None or place is None or not place.is_relative_to(before):
        return address
    now = after / place.relative_to(before)
    # of what another user has, and does not let this one see, nothing can be said or used
    if os.access(place, os.F_OK) and not now.exists():
        return address
    return now.as_uri() if address.startswith("file:") else str(now)
