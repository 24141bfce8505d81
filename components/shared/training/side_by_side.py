"""Trainings side by side, each in a process that keeps to a few cores of its own.

Two cores train a small network hardly faster than one, so that two trainings on one core each are done sooner than
one after the other on both. And since a sum's rounding depends on the number of threads that share it, a training
that keeps to a fixed number of cores ends alike on machines with more of them.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.queues import SimpleQueue

from components.shared import progress
from components.shared.errors import UserError
from components.shared.training.backend import start_backend

# each holds a training framework, a gigabyte or more
MOST = 8


def cores() -> set[int]:
    """Those that this process may use; none where the system does not tell (macOS)."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


# those that trainings may be shared out over
_all = cores()


def keep_to(threads: int | None, alone: bool = False) -> None:
    """Let this process use so many of its cores only, chosen at random; before Keras computes anything.

    Args:
        threads: `runtime.threads`; None: all.
        alone: the others are not its own to start processes on, as in a pod, whose limit the cores do not tell.
    """
    global _all
    here = cores()
    if threads is not None and len(here) > threads:
        os.sched_setaffinity(0, random.SystemRandom().sample(sorted(here), threads))
    if alone and threads is not None:
        _all = cores()


@contextmanager
def side_by_side(threads: int | None, most: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes to train in; they end with the block, or with this process however that ends.

    Args:
        threads: `runtime.threads`, the cores of each.
        most: the number of trainings.

    Yields:
        An executor; None where there is one training, or cores for one only.

    Raises:
        UserError: a process was killed.
    """
    count = min(most, MOST, len(_all) // threads) if threads is not None else 1
    if threads is None or count < 2:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    places: SimpleQueue[tuple[int, set[int]]] = context.SimpleQueue()
    shuffled = random.SystemRandom().sample(sorted(_all), len(_all))
    for index in range(count):
        places.put((index, set(shuffled[index * threads : (index + 1) * threads])))
    pool = ProcessPoolExecutor(count, context, _start, (places,))
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            "a process that trained was killed, as a rule for want of memory; set runtime.threads=null to train "
            "one after another"
        ) from None
    finally:
        # those that still train, where another one failed or somebody has pressed Ctrl-C
        pool.shutdown(wait=False, cancel_futures=True)
        children = multiprocessing.active_children()
        for child in children:
            child.kill()
        for child in children:
            # what they cost counts from then on
            child.join()


def _start(places: SimpleQueue[tuple[int, set[int]]]) -> None:
    """What each process does first."""
    index, own = places.get()
    os.sched_setaffinity(0, own)
    progress.line = index
    # several share a graphics card, of which each would take all memory
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Ctrl-C is for the first process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # before the first training's module imports Keras, which announces itself; why it can't be, a training tells
    with suppress(UserError):
        start_backend()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
