"""Running the pipeline here, by Kubeflow's local runner: each step in a process of this environment."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kfp import local
from kfp.local import subprocess_task_handler
from kfp.local.orchestrator import task_executor
from kfp.local.status import Status

from components.shared.code import ROOT
from components.shared.environment import environment
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.repository import find_root
from pipelines.kubeflow import RUN
from pipelines.kubeflow.pipeline import build_pipeline
from pipelines.summary import table

FOLDER = Path(".cache/kubeflow")


def run_here(
    overrides: Sequence[str], out: Path | None, data_version: str, cache: bool, on_change: bool = False
) -> None:
    """Run all steps in the repository; prints what they print, how each ended, and what came out.

    Args:
        overrides: options of the run.
        out: where outputs and the cache are kept; a run gets a folder of its own in it; None is a folder of the
            repository.
        data_version: names the state of the data; empty: found by looking at the source.
        cache: answer from earlier runs in the same folder where nothing changed.
        on_change: do nothing where nothing changed since the last run that looked and ended well.

    Raises:
        UserError: an override is not allowed, `out` can't be written, or a step failed; the line names it and its
            reason.
    """
    root = find_root()
    folder = Path(os.path.relpath(out, root)) if out is not None else FOLDER
    with chdir(root):
        params, _ = compose_params(overrides)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: can't be written: {error.strerror}; choose another --out") from None
        tasks = _Tasks()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        run_id = time.strftime("local-%Y%m%d-%H%M%S")
        with warnings.catch_warnings(), environment({RUN: run_id, "PYTHONPATH": os.pathsep.join(paths)}):
            # that names and resources do nothing here, and that no image is run, is known
            warnings.filterwarnings("ignore", module="kfp")
            pipeline = build_pipeline(params.runtime.replicates, on_change=on_change)
            local.init(
                local.SubprocessRunner(use_venv=False),
                pipeline_root=str(folder),
                workspace_root=str(folder / ".workspace"),
                raise_on_error=False,
                enable_caching=cache,
            )
            # what is replaced is not public; kfp is pinned, and a test fails where it goes
            with (
                redirect_stdout(io.StringIO()),
                patch.object(task_executor, "execute_single_task", tasks.run),
                patch.object(subprocess_task_handler, "run_local_subprocess", tasks.run_process),
            ):
                pipeline(overrides=list(overrides), data_version=data_version)
        if tasks.failure:
            raise UserError(tasks.failure)
        if "evaluate" not in tasks.outputs:
            return
        evaluation = Path(tasks.outputs["evaluate"]["evaluation"].path)
        registration = None
        if "register" in tasks.outputs:
            registration = Path(tasks.outputs["register"]["registration"].path)
        page = os.path.relpath(evaluation / "report.html")
        print("\n".join(["", *table(evaluation, registration, page)]))


class _Tasks:
    """Runs the tasks of kfp.local, and passes on the steps' own lines instead of all that it prints.

    Attributes:
        outputs: of each task that went well, or was answered from the cache: name → parameter, or KFP artifact.
        failure: the first task that failed and why, in one line.
    """

    def __init__(self) -> None:
        self.outputs: dict[str, dict[str, Any]] = {}
        self.failure = ""
        self._out, self._execute = sys.stdout, task_executor.execute_single_task
        self._name, self._ran, self._last = "", False, ""

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run one task, or answer it from the cache."""
        self._name, self._ran, self._last = kwargs["task_name"], False, "ended without a word"
        start = time.monotonic()
        outputs, status = self._execute(*args, **kwargs)
        took = f" in {time.monotonic() - start:.0f} s"
        if status == Status.SUCCESS:
            self.outputs[self._name] = outputs
            self._say(f"{self._name}: {f'done{took}' if self._ran else 'cached'}")
        else:
            self.failure = self.failure or f"{self._name}: {self._last}"
            self._say(f"{self._name}: failed{took}")
        return outputs, status

    def run_process(self, full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        """Run the command of a task; its last line, of a crash that of the traceback, is why it failed."""
        self._ran = True
        self._say(f"{self._name}: running")
        with subprocess.Popen(
            full_command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env_vars or {})},
        ) as process:
            for line in _own_lines(process.stdout or ()):
                self._last = line.strip().removeprefix("error: ")
                if not line.startswith("error: "):
                    self._say(line)
        return process.returncode

    def _say(self, line: str) -> None:
        # not with print, which kfp.local replaces by one that indents
        self._out.write(f"{line}\n")
        self._out.flush()


def _own_lines(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a step without those of KFP, which also shows all inputs as JSON."""
    dumping = False
    for line in map(str.rstrip, lines):
        if dumping:
            dumping = line != "}"
        elif line.startswith("[KFP Executor"):
            dumping = line.endswith("Got executor_input:")
        elif line:
            yield line
