"""What a run logs, on its way to the tracking server: what can't be sent now waits, and the step never does.

A server that is lost costs one time-out. After it the step goes on; the server is asked again, briefly and ever
more rarely, and gets everything in order, with the times at which it was logged. What still waits when the step
has ended is kept in a folder, to be sent by `python -m pipelines resend`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.shared.errors import UserError, first_line
from components.shared.tracking.client import requests_within

UNSENT = "unsent"
# seconds: between two tries while the server is away, at first and at most; of asking whether it answers again
FIRST_PAUSE, LONGEST_PAUSE, ASKING = 2.0, 60.0, 3
# what asking again would not change
_REFUSALS = {
    "ENDPOINT_NOT_FOUND",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "NOT_IMPLEMENTED",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
}
_BATCH = 100  # parameters or tags MLflow takes at once


@dataclass
class Call:
    """One thing to log: `kind` is metrics, params, tags, file, folder, dataset or end; `content` is plain JSON."""

    kind: str
    content: dict[str, Any]
    tries: int = field(default=0, compare=False)


class Delivery:
    """The calls of one run, sent at once while the server answers, and later while it does not."""

    def __init__(self, run_id: str):
        self.run_id = run_id
        self.waiting: deque[Call] = deque()
        self._pause = self._next_try = 0.0
        self._told: set[str] = set()

    @property
    def away(self) -> bool:
        """Whether the server did not answer when it was last asked."""
        return self._pause > 0

    def send(self, kind: str, **content: Any) -> None:
        """Send a call, or let it wait behind those that wait already. Never raises."""
        self.waiting.append(Call(kind, content))
        if time.monotonic() >= self._next_try:
            self.drain()

    def drain(self) -> None:
        """Send what waits, in order, until it is done or the server does not answer. Never raises."""
        if self.away and not self._answers():
            self._later()
            return
        while self.waiting:
            call = self.waiting[0]
            try:
                with requests_within(None, retries=1):
                    _perform(self.run_id, call)
            except Exception as error:
                if not _is_refusal(error):
                    self._lost(call, error)
                    return
                self._refused(call, error)
            self.waiting.popleft()
        if self.away:
            print("MLflow answers again and has got all that was logged meanwhile", file=sys.stderr)
            self._pause = self._next_try = 0.0

    def wait(self, seconds: float) -> None:
        """Give a server that is away this long to come back and get what waits."""
        end = time.monotonic() + seconds
        if self.waiting and seconds >= 1:
            print(f"waiting up to {seconds:.0f} s for MLflow to answer again", file=sys.stderr)
        while self.waiting and (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            self.drain()

    def keep(self) -> Path:
        """Put what waits, with copies of its files that are still there, into `unsent/<run id>/`; returns that."""
        folder = Path(UNSENT) / self.run_id
        folder.mkdir(parents=True, exist_ok=True)
        calls = []
        for index, call in enumerate(self.waiting):
            content = dict(call.content)
            if call.kind in ("file", "folder"):
                source = Path(content["path"])
                if not source.exists():
                    continue
                kept = folder / str(index) / source.name
                kept.parent.mkdir(exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy2)(source, kept)
                content["path"] = kept.relative_to(folder).as_posix()
            calls.append({"kind": call.kind, "content": content})
        (folder / "calls.json").write_text(json.dumps(calls, indent=1), encoding="utf-8")
        return folder

    def _answers(self) -> bool:
        import mlflow

        try:
            with requests_within(ASKING):
                mlflow.MlflowClient().get_run(self.run_id)
        except Exception as error:
            return _is_refusal(error)
        return True

    def _lost(self, call: Call, error: Exception) -> None:
        if not self.away:
            print(
                f"warning: MLflow no longer answers ({first_line(error)}); the step goes on, and what it logs "
                "is sent when the server answers again",
                file=sys.stderr,
            )
        call.tries += 1
        if call.tries >= 3:
            # perhaps it is this call that the server can't take: the others first
            self.waiting.rotate(-1)
        self._later()

    def _later(self) -> None:
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._next_try = time.monotonic() + self._pause

    def _refused(self, call: Call, error: Exception) -> None:
        why = first_line(error)
        if why not in self._told:
            print(f"warning: MLflow refused {call.kind} ({why}); the rest is tracked", file=sys.stderr)
        self._told.add(why)


def resend(place: Path = Path(UNSENT)) -> list[str]:
    """Send what earlier steps could not: each folder `<run id>/` below `place`, which is then removed.

    The server must be connected to.

    Returns:
        A line for each run.

    Raises:
        UserError: a folder is not readable, or the server does not take all of it.
    """
    lines = []
    for folder in sorted(path.parent for path in place.glob("*/calls.json")):
        delivery = Delivery(folder.name)
        delivery.waiting.extend(_kept(folder))
        number = len(delivery.waiting)
        delivery.drain()
        if delivery.waiting:
            raise UserError(
                f"{folder}: {len(delivery.waiting)} of {number} calls were not sent; run the same command again "
                "when the server answers"
            )
        shutil.rmtree(folder)
        lines.append(f"run {folder.name}: {number} calls sent")
    with suppress(OSError):
        place.rmdir()
    return lines


def _kept(folder: Path) -> list[Call]:
    try:
        calls = [
            Call(str(item["kind"]), dict(item["content"]))
            for item in json.loads((folder / "calls.json").read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder / 'calls.json'}: can't be read ({first_line(error)}); remove the folder"
        ) from None
    for call in calls:
        if call.kind in ("file", "folder"):
            call.content["path"] = str(folder / call.content["path"])
    return calls


def _is_refusal(error: Exception) -> bool:
    if getattr(error, "error_code", None) in _REFUSALS or isinstance(error, FileNotFoundError | TypeError):
        return True
    status = getattr(getattr(error, "response", None), "status_code", 0)
    # 400 is what MLflow says when its database fails, 401 may be a password in change, 408 and 429 ask to come back
    return 400 < status < 500 and status not in (401, 408, 429)


def _perform(run_id: str, call: Call) -> None:
    """Make one call. Made twice it does what it does once: the server knows a metric's time and step."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag

    client, content = mlflow.MlflowClient(), call.content
    if call.kind == "metrics":
        values, when, step = content["values"], content["time"], content["step"]
        client.log_batch(run_id, metrics=[Metric(key, float(value), when, step) for key, value in values.items()])
    elif call.kind == "params":
        for part in _parts(content["values"]):
            client.log_batch(run_id, params=[Param(key, str(value)) for key, value in part.items()])
    elif call.kind == "tags":
        for part in _parts(content["values"]):
            client.log_batch(run_id, tags=[RunTag(key, str(value)) for key, value in part.items()])
    elif call.kind == "file":
        client.log_artifact(run_id, content["path"], content["folder"])
    elif call.kind == "folder":
        client.log_artifacts(run_id, content["path"], content["folder"])
    elif call.kind == "dataset":
        client.log_inputs(run_id, datasets=[_dataset_input(content)])
    else:
        client.set_terminated(run_id, content["status"], content["time"])


def _parts(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    items = list(values.items())
    for start in range(0, len(items), _BATCH):
        yield dict(items[start : start + _BATCH])


def _dataset_input(content: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(Dataset(**content["dataset"]), [InputTag("mlflow.data.context", content["context"])])
