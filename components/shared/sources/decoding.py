"""Image files decoded on all processors, in the order in which they came, a few at a time."""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from itertools import chain, islice
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

import loky
import numpy as np

from components.shared.errors import UserError
from components.shared.sources.pixels import LIMITS, BadImageError, Limits, Picture, decode

Item = TypeVar("Item")
Result = TypeVar("Result")
CHUNK = 8  # images that a thread decodes before it asks for more
# of so many no more than a tenth of a second is lost to threads; to start processes takes several
FEW = 500
BATCH = 128  # images that a process is given at once, fewer of large ones:
_SLOT = 4 << 20  # bytes of memory for those of one batch, once they are resized
MOST = 16  # processes: the first one, which reads the files, can't feed more


class ImageFile(NamedTuple):
    """An image file still to be read: its length in bytes, what reads it, and the rest as in `decode`."""

    length: int
    read: Callable[[], bytes]
    name: str
    path: str
    group: str | None = None

    @classmethod
    def of(cls, content: bytes, name: str, path: str) -> ImageFile:
        """One that has been read."""
        return cls(len(content), lambda: content, name, path)


def decode_all(
    files: Iterable[ImageFile], size: int, bits: int | None = None, limits: Limits = LIMITS, channels: int = 3
) -> Iterator[Picture | BadImageError]:
    """Read and decode files on all processors, in order, holding only a few at a time; see `decode`.

    Pillow and Python hold the interpreter's lock for so much of a small image's time that threads are no faster
    than one alone: of many images the most are decoded by processes.

    Returns:
        The picture of each file, or why it can't be read.

    Raises:
        UserError: a process was killed.
    """
    source = iter(files)

    def one(file: ImageFile) -> Picture | BadImageError:
        with limits.files.taken(min(file.length, limits.files.total)):
            content = _content(file, limits)
            if isinstance(content, BadImageError):
                return content
            return _decoded(content, size, file.name, file.path, file.group, bits, limits, channels)

    yield from in_threads(one, islice(source, FEW))
    if (after := next(source, None)) is not None:
        yield from _in_processes(chain([after], source), size, bits, limits, channels)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Do `work` for each item on all processors; yields the results in order, holding only a few at a time."""
    workers = loky.cpu_count()
    source = iter(items)
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while True:
                # one more than are at work: none waits for its next ones
                while len(pending) <= workers and (batch := list(islice(source, CHUNK))):
                    pending.append(pool.submit(lambda items: [work(item) for item in items], batch))
                if not pending:
                    return
                yield from pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


# of a batch each file's content (or why it can't be read), name, path and group
_Batch = list[tuple[bytes | BadImageError, str, str, str | None]]
# what a picture tells besides its pixels, in the order of its fields
_Found = tuple[Any, ...] | BadImageError
_about = attrgetter(*(field.name for field in fields(Picture)[1:]))


def _in_processes(
    files: Iterator[ImageFile], size: int, bits: int | None, limits: Limits, channels: int
) -> Iterator[Picture | BadImageError]:
    """What `decode_all` does, by processes: this one reads the files, and takes the pixels from a file they map."""
    workers = min(loky.cpu_count(), MOST)
    count = max(1, min(BATCH, _SLOT // (channels * size**2)))
    # one more than are at work, and the one whose pictures are being taken
    shape = (workers + 2, count, size, size, channels)
    context = loky.backend.get_context("loky")
    free, pending = list(range(shape[0])), deque[tuple[int, int, Future[list[_Found]]]]()
    room, batches = limits.files.total, _Batches(files, count, limits)
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(math.prod(shape))
        slots = _mapped(file.name, shape)
        shared = (os.getpid(), file.name, shape, bits, limits.among(context))
        pool = loky.ProcessPoolExecutor(workers, context=context, initializer=_start, initargs=shared)
        try:
            while True:
                while free and (batch := batches.take(room, alone=not pending)):
                    room -= batches.held
                    pending.append((free[-1], batches.held, pool.submit(_decode_batch, free.pop(), batch)))
                if not pending:
                    return
                slot, held, future = pending.popleft()
                for found, pixels in zip(future.result(), slots[slot], strict=False):
                    yield found if isinstance(found, BadImageError) else Picture(pixels.copy(), *found)
                room += held
                free.append(slot)
        except BrokenProcessPool:
            raise UserError(
                "a process that decoded images was killed, as a rule for want of memory; lower data.memory"
            ) from None
        finally:
            pool.shutdown(wait=True, kill_workers=True)


class _Batches:
    """Files read and put together, as many as fit into the memory that is left.

    Attributes:
        held: bytes that the latest batch counts for.
    """

    def __init__(self, files: Iterator[ImageFile], count: int, limits: Limits):
        self._files, self._count, self._limits = files, count, limits
        self._next = next(files, None)
        self.held = 0

    def take(self, room: int, alone: bool) -> _Batch:
        """The next ones; none if there is no other, or the next one must wait until there is more room.

        Args:
            room: bytes that they may take.
            alone: there is no other batch, so that at least one file may be read.
        """
        batch: _Batch = []
        self.held = 0
        while self._next is not None and len(batch) < self._count:
            # here and on its way to a process
            needed = 2 * self._next.length
            if self.held + needed > room and (batch or not alone):
                break
            content = _content(self._next, self._limits)
            batch.append((content, self._next.name, self._next.path, self._next.group))
            self.held += needed if isinstance(content, bytes) else 0
            self._next = next(self._files, None)
        return batch


def _content(file: ImageFile, limits: Limits) -> bytes | BadImageError:
    """Read a file; of one that can't be, why."""
    name, path = file.name, file.path
    if file.length > limits.files.total:
        return BadImageError(name, path, "", f"a file that {limits.advice(file.length, limits.files)}")
    try:
        return file.read()
    except UserError as error:
        return BadImageError(name, path, "", str(error).removeprefix(f"{name}: ").removeprefix("can't be read: "))


def _decoded(content: bytes, size: int, name: str, *more: Any) -> Picture | BadImageError:
    try:
        return decode(content, size, name, *more)
    except BadImageError as error:
        return error


def _mapped(path: str, shape: tuple[int, ...]) -> np.ndarray:
    # not as `memmap`, whose every part costs microseconds
    return np.asarray(np.memmap(path, np.uint8, "r+", shape=shape))


# in the processes: where the pixels go, and how they are decoded
_slots: np.ndarray
_bits: int | None
_limits: Limits


def _start(parent: int, path: str, shape: tuple[int, ...], bits: int | None, limits: Limits) -> None:
    """What each process does first."""
    global _slots, _bits, _limits
    # Ctrl-C is for the first process, which ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    _slots, _bits, _limits = _mapped(path, shape), bits, limits


def _end_with(parent: int) -> None:
    """A process that waits for work does not see that the first one was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _decode_batch(slot: int, batch: _Batch) -> list[_Found]:
    """Decode files, and put the pixels of each into its place in `_slots`."""
    found: list[_Found] = []
    for place, (content, name, path, group) in zip(_slots[slot], batch, strict=False):
        if isinstance(content, bytes):
            one = _decoded(content, place.shape[0], name, path, group, _bits, _limits, place.shape[-1])
        else:
            one = content
        if isinstance(one, Picture):
            place[...] = one.pixels
            found.append(_about(one))
        else:
            found.append(one)
    return found
