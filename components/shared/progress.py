"""Progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

# of several processes at work each has a line of the terminal, and says in a log what it works on
line = 0
about = ""


class Progress:
    """Reports how far a piece of work is.

    Args:
        label: what is being done, e.g. "pretrain".
        total: number of units of work.
        unit: what is counted, e.g. "epoch".
        every: in a log, at most one line in so many seconds (the first and the last are always printed).
    """

    def __init__(self, label: str, total: int, unit: str, every: float = 5.0):
        self.label, self.total, self.unit, self.every = f"{label}{about}", total, unit, every
        self.done = self._first = 0
        self._start = time.monotonic()
        self._printed = -float("inf")
        self._bar = tqdm(total=total, desc=self.label, unit=unit, position=line) if sys.stderr.isatty() else None

    def start_at(self, done: int) -> None:
        """Go on from work finished by an earlier run."""
        self.done = self._first = done
        if self._bar is not None:
            self._bar.update(done)

    def step(self, values: Mapping[str, float] | None = None, count: int = 1) -> None:
        """`count` more units are done; `values` are shown beside them."""
        self.done += count
        formatted = {name: f"{value:.4g}" for name, value in (values or {}).items()}
        if self._bar is not None:
            self._bar.set_postfix(formatted, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if self.done < self.total and self.done > 1 and now - self._printed < self.every:
            return
        self._printed = now
        left = (now - self._start) / max(self.done - self._first, 1) * (self.total - self.done)
        numbers = "".join(f"  {name} {value}" for name, value in formatted.items())
        print(f"{self.label}: {self.unit} {self.done}/{self.total}{numbers}  ({left:.0f} s left)", flush=True)

    def more(self, count: int) -> None:
        """So many units are to be done besides."""
        self.total += count
        if self._bar is not None:
            self._bar.total = self.total

    def note(self, line: str) -> None:
        """Say something on the error stream without tearing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
