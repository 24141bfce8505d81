"""Running the pipeline here, by Kubeflow's local runner: each step in a process of this environment."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from kfp import local
from kfp.local.orchestrator import task_executor
from kfp.local.status import Status

from components.shared.code import ROOT
from components.shared.environment import environment
from components.shared.errors import UserError
from pipelines.kubeflow import RUN
from pipelines.kubeflow.pipeline import build_pipeline


@dataclass
class Task:
    """What became of one task.

    Attributes:
        state: "done", "cached" or "failed".
        outputs: name → parameter, or KFP artifact with `path` and `metadata`.
        seconds: that it took.
        reason: why it failed, in one line.
    """

    state: str
    outputs: dict[str, Any]
    seconds: float
    reason: str = ""


@dataclass
class Report:
    """What became of a run: its tasks in the order in which they ran."""

    run_id: str
    tasks: dict[str, Task] = field(default_factory=dict)

    def failed(self) -> str | None:
        """Name of the first task that failed, None where all went well."""
        return next((name for name, task in self.tasks.items() if task.state == "failed"), None)

    def folder(self, task: str, artifact: str) -> Path | None:
        """Where a task left an artifact, in this run or in the one that it was remembered from."""
        found = self.tasks.get(task)
        return Path(found.outputs[artifact].path) if found is not None and found.state != "failed" else None


def run_here(overrides: Sequence[str], folder: Path, data_version: str = "", cache: bool = True) -> Report:
    """Run the pipeline with kfp.local; prints what the steps print, and how each ended.

    Args:
        overrides: options of the run.
        folder: where outputs and the cache are kept; a run gets a folder of its own in it.
        data_version: names the state of the data; empty: found by looking at it.
        cache: answer from earlier runs in `folder` where nothing changed.

    Returns:
        What became of the tasks, of a failed run too.

    Raises:
        UserError: `folder` can't be written.
    """
    report = Report(run_id=time.strftime("local-%Y%m%d-%H%M%S"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be written: {error.strerror}; choose another --out") from None
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with warnings.catch_warnings(), environment({RUN: report.run_id, "PYTHONPATH": os.pathsep.join(paths)}):
        # that names and resources do nothing here, and that no image is run, is known
        warnings.filterwarnings("ignore", module="kfp")
        pipeline = build_pipeline()
        local.init(
            local.SubprocessRunner(use_venv=False),
            pipeline_root=str(folder),
            workspace_root=str(folder / ".workspace"),
            raise_on_error=False,
            enable_caching=cache,
        )
        screen = _Screen(sys.stdout)
        with redirect_stdout(screen), _watched(report, screen):
            pipeline(overrides=list(overrides), data_version=data_version)
    return report


@contextmanager
def _watched(report: Report, screen: _Screen) -> Iterator[None]:
    """Learn of each task, also of a cached one, of which kfp.local tells nothing but a line in its log.

    The function that is wrapped is not public; kfp is pinned, and a test fails where it goes.
    """
    execute = task_executor.execute_single_task

    def watched(*args: Any, **kwargs: Any) -> Any:
        name = kwargs["task_name"]
        screen.begin(name)
        start = time.monotonic()
        outputs, status = execute(*args, **kwargs)
        seconds = round(time.monotonic() - start, 1)
        if status != Status.SUCCESS:
            task = Task("failed", outputs, seconds, screen.last)
        else:
            task = Task("done" if screen.ran else "cached", outputs, seconds)
        report.tasks[name] = task
        screen.say(f"{name}: {task.state}" + (f" in {seconds:.0f} s" if screen.ran else ""))
        return outputs, status

    disabled = logging.root.manager.disable
    # what kfp.local logs is told by the lines above
    logging.disable(logging.ERROR)
    task_executor.execute_single_task = watched
    try:
        yield
    finally:
        task_executor.execute_single_task = execute
        logging.disable(disabled)


class _Screen(io.TextIOBase):
    """Takes what kfp.local prints and passes on the steps' own lines.

    `ran` says whether the task printed anything: one that was answered from the cache did not. `last` is the last
    line that it printed; of a crash, that of the traceback.
    """

    _INDENT = "    "
    _NOISE = re.compile(r"^(-+|\[KFP Executor .*|)$")
    _DUMP, _DUMP_END = re.compile(r"^\[KFP Executor .*Got executor_input:$"), "}"

    def __init__(self, out: TextIO):
        self._out, self._line, self._dumping = out, "", False
        self._task, self.ran, self.last = "", True, ""

    def begin(self, task: str) -> None:
        """What is printed from now on is of this task."""
        self._task, self.ran, self.last = task, False, ""

    def write(self, text: str) -> int:
        """Pass on whole lines; the steps report progress a line at a time when they do not write to a terminal."""
        if not self.ran:
            self.ran = True
            self.say(f"{self._task}: running")
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._pass(line.removeprefix(self._INDENT))
        return len(text)

    def say(self, line: str) -> None:
        """Print a line of our own."""
        # not with print, which kfp.local replaces by one that indents
        self._out.write(f"{line}\n")
        self._out.flush()

    def _pass(self, line: str) -> None:
        if self._dumping:
            self._dumping = line != self._DUMP_END
            return
        self._dumping = self._DUMP.match(line) is not None
        if self._NOISE.match(line.strip()):
            return
        self.last = line.strip().removeprefix("error: ")
        if not line.startswith("error: "):
            self.say(line)
