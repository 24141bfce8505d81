"""Progress of long work: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

# a line is at most so long
WIDTH = 80
# how figures are called there, the most telling first; others follow these, by their own names
SHORT = {
    "loss": "loss",
    "contrastive_loss": "loss",
    "log_loss": "loss",
    "validation_probe_accuracy": "val_probe",
    "validation_accuracy": "val_acc",
    "knn_accuracy": "knn",
    "validation_loss": "val_loss",
    "accuracy": "acc",
    "contrastive_accuracy": "acc",
    "learning_rate": "lr",
    "weight_decay": "wd",
}
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
        # the bar takes what the figures leave of the line
        looks = "{desc}: {n_fmt}/{total_fmt}{postfix} ({remaining} left) {bar}"
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=self.label, position=line, bar_format=looks) if terminal else None

    def start_at(self, done: int) -> None:
        """Go on from work finished by an earlier run."""
        self.done = self._first = done
        if self._bar is not None:
            self._bar.update(done)

    def step(self, values: Mapping[str, float] | None = None, count: int = 1) -> None:
        """`count` more units are done; of `values` those are shown beside them that fit into the line."""
        self.done += count
        if self._bar is not None:
            shown = self._fitting(values or {}, " (00:00:00 left) ")
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if self.done < self.total and self.done > 1 and now - self._printed < self.every:
            return
        self._printed = now
        left = (now - self._start) / max(self.done - self._first, 1) * (self.total - self.done)
        end = f"  ({left:.0f} s left)"
        numbers = "".join(f"  {name} {value}" for name, value in self._fitting(values or {}, end).items())
        print(f"{self._head()}{numbers}{end}", flush=True)

    def _head(self) -> str:
        return f"{self.label}: {self.unit} {self.done}/{self.total}"

    def _fitting(self, values: Mapping[str, float], end: str) -> dict[str, str]:
        """Short name → text of the most telling figures, as many as fit between the head of a line and its end."""
        known = [name for name in SHORT if name in values]
        room, shown = WIDTH - len(self._head()) - len(end), {}
        for name in [*known, *(name for name in values if name not in SHORT)]:
            short, text = SHORT.get(name, name), f"{values[name]:.4g}"
            # two spaces before, one between; in a bar as much
            room -= len(short) + len(text) + 3
            if room < 0:
                break
            shown[short] = text
        return shown

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
