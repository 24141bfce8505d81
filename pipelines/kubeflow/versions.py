"""The state of the data that a run works with, as text for the cache: unchanged text, unchanged answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from components.shared.digests import file_digest, value_digest
from components.shared.params.schema import DataParams
from components.shared.sources import is_address, is_published, remote

# of a source that can't be looked at
NOT_VISIBLE = "not visible"


def data_version(data: DataParams) -> str:
    """The state of the source that `ingest` reads.

    Of a file, a digest of its content; of a folder, of the names, sizes and times of its files, which is quick for
    a million of them; of an address, what its server says of it. A source whose images are published never changes.
    One that is not visible from here has no state: `ingest` will say what is wrong with it.
    """
    path = Path(data.path)
    if is_published(data.source):
        return "published"
    if is_address(data.path):
        # where neither tells, every run fetches anew
        return data.digest or remote.state(data) or f"unknown at {time.time_ns()}"
    if path.is_file():
        return file_digest(path)
    if path.is_dir():
        return value_digest(sorted(_states(path, "", ())))
    return NOT_VISIBLE


def _states(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[list[str | int]]:
    """Name, size and time of each file; links are followed, as `ingest` does, but not in a circle."""
    real = folder.resolve()
    if real in above:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _states(path, f"{prefix}{path.name}/", (*above, real))
        elif path.is_file():
            found = path.stat()
            yield [prefix + path.name, found.st_size, found.st_mtime_ns]
