"""What is said about a source while it is read: its classes, what is left out and why, and the room it needs."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from components.shared.artifacts import SPLITS
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.progress import Progress
from components.shared.sources import Source
from components.shared.sources.pixels import BadImageError, in_mib
from components.shared.sources.splitting import alike

# so many names fit in a line
NAMED = 20
# beside an image's pixels: its label, and what the lists of files tell of it
_BYTES_BESIDE = 500


class LeftOut:
    """Files of a source that are in no split: images that can't be read, and files that are none.

    Args:
        source: where they are from.
        data: `on_bad_image` and `max_bad_fraction` are used.

    Attributes:
        bad: of each image that can't be read its split of the source, its class ("" if it has none), and why.
    """

    def __init__(self, source: Source, data: DataParams):
        self._source, self._data = source, data
        self.bad: list[tuple[str, str, BadImageError]] = []

    def add(self, split: str, label: int, error: BadImageError, progress: Progress) -> None:
        """Note, and tell, that an image of a split can't be read; `label`: −1 for none."""
        self.bad.append((split, "" if label < 0 else self._source.class_names[label], error))
        progress.note(f"ingest: {error}")

    def check(self, total: int) -> None:
        """Refuse what `data.on_bad_image` and `data.max_bad_fraction` do not allow of `total` images.

        Raises:
            UserError: one line that names the first images; all have been told.
        """
        if not self.bad:
            return
        data, count = self._data, len(self.bad)
        names = ", ".join(error.path for _, _, error in self.bad[:5]) + (", …" if count > 5 else "")
        told = f"{self._source.location}: {count:,} of {total:,} images can't be read ({names}), as told above"
        if data.on_bad_image == "fail":
            first = f": {self.bad[0][2]}" if count == 1 else ""
            raise UserError(f"{told}{first}; repair or remove them, or set data.on_bad_image=skip to go on without")
        if count > data.max_bad_fraction * total:
            raise UserError(
                f"{told}, more than data.max_bad_fraction = {data.max_bad_fraction}; repair or remove them"
            )

    def counts(self) -> dict[str, int]:
        """Number of files by kind."""
        return dict(Counter(self.table()["kind"]))

    def table(self) -> pd.DataFrame:
        """What `left_out.parquet` tells: path, split of the source, class_name, kind, reason; "" for none."""
        rows = [
            (error.path, split, label, f"bad {error.kind or 'file'}", error.reason)
            for split, label, error in self.bad
        ]
        rows += [(path, "", "", kind, "no image") for path, kind in self._source.others]
        return pd.DataFrame(rows, columns=["path", "split", "class_name", "kind", "reason"], dtype="string")

    def tell(self, listed: Path) -> None:
        """Print how many files of each kind are left out; `listed`: where all of them stand."""
        counts = Counter(self.counts())
        if counts:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common(NAMED))
            print(f"ingest: left out {counts.total():,} files: {kinds}; all are in {listed}", flush=True)


def describe_source(source: Source) -> None:
    """Print what the folders or files were taken for, so that a wrong guess is seen."""
    splits = ", ".join(f"{split} ({name})" if name != split else split for split, name in source.splits.items())
    if splits:
        print(f"ingest: {source.location}: splits {splits}", flush=True)
    names = source.class_names
    if names:
        more = f", … ({len(names) - NAMED:,} more)" if len(names) > NAMED else ""
        print(f"ingest: {source.location}: {len(names):,} classes: {', '.join(names[:NAMED])}{more}", flush=True)
    for twins in alike(names):
        print(
            f"ingest: warning: the classes {', '.join(map(repr, twins))} differ in upper and lower case alone; "
            "put them together if they are one",
            flush=True,
        )


def grey_range(bits: Sequence[int | None], source: Source) -> int | None:
    """The range that all 16-bit grey images of a source need together; None if they were read so.

    Each is first scaled by the range that it needs itself. If these differ, a dark one would become as bright as
    the others, so all must be read again with one range.

    Args:
        bits: of each image the range that it needs; None of those that are not of 16 bits.
        source: that was read.
    """
    found = {needed for needed in bits if needed is not None}
    if not found:
        return None
    asked, most = source.bits, max(found)
    source.bits = asked or most
    if source.bits != 16:
        count = sum(needed is not None for needed in bits)
        print(
            f"ingest: {count:,} images of 16-bit grey hold values of at most {most} bits: "
            f"{(1 << source.bits) - 1:,} becomes white (data.grey_bits)",
            flush=True,
        )
    return source.bits if asked is None and len(found) > 1 else None


@contextmanager
def room_for(folder: Path, out: Path, images: int, queued: int, length: int) -> Iterator[None]:
    """Refuse to begin, and say how much is missing, where a dataset does not fit on the disk.

    Args:
        folder: that is written.
        out: its final name, for the message.
        images: number of images.
        queued: how many of them wait in a second place for a while.
        length: of the pixels of each, in bytes.

    Raises:
        UserError: the disk has too little room, or got full.
    """
    needed = (images + queued) * length + images * _BYTES_BESIDE + (1 << 20)

    def refusal() -> UserError:
        free = shutil.disk_usage(folder).free
        return UserError(
            f"{out}: the disk is too small: {needed:,} bytes ({in_mib(needed)}) are needed while it is written, "
            f"and {free:,} are free; make room and run again (nothing is left)"
        )

    if shutil.disk_usage(folder).free < needed:
        raise refusal()
    try:
        yield
    except OSError as error:
        # NumPy tells of a full disk without a number
        if error.errno not in (None, errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{out}: can't be written: {error.strerror}") from None
        raise refusal() from None


def remaining(
    labels: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray], location: str
) -> dict[str, np.ndarray]:
    """The labels of the images that could be read.

    Args:
        labels: of each split, int64 (N,).
        kept: of each split which could be read, bool (N,).
        location: of the source, for the message.

    Raises:
        UserError: a split has none left.
    """
    found = {split: labels[split][kept[split]] for split in SPLITS}
    for split in SPLITS:
        if labels[split].size and not found[split].size:
            raise UserError(f"{location}: no image of {split} can be read, as told above; repair them")
    return found
