"""What a run logs, on its way to the tracking server: what can't be sent now waits, and the step never does.

A server that is lost costs one time-out. After it the step goes on; the server is asked again, briefly and now and
then, and gets everything with the times at which it was logged. What a step that ended well could not send is
written into its folder, `tracking.json`, from which `contrastive resend` makes the run whole.

The file lists calls, and of files only their paths: what the step made is sent from where it lies. Numbers stand
there once more because the rest of the folder is not the run: `result.json` has parameters, inputs and last
metrics, `curves.csv` losses by epoch. Neither knows when a point was logged (by which MLflow knows one that is sent
again), what the machine did meanwhile, the pace of epochs, commit, data and pipeline of then (`lineage`), the
dataset's description, nor under which names and folders a step logs what it made, which would take a rule a step.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, Metric, Param, RunTag
from pydantic import BaseModel, ConfigDict

from components.shared.errors import first_line
from components.shared.tracking.client import requests_within
from components.shared.tracking.models import Network, find_network, log_network

FILE = "tracking.json"
# seconds: between two tries while the server is away; of asking whether it answers again
PAUSE, ASKING = 20.0, 3
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


Kind = Literal["metrics", "params", "tags", "file", "dataset", "model", "uses"]


class Call(BaseModel):
    """One thing to log. Sent twice it does what it does once: the server knows a metric's time and step."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    kind: Kind
    content: dict[str, Any]

    def send(self, run_id: str, place: Path) -> None:
        """Make the call; the paths of files are taken from `place`."""
        client, content = MlflowClient(), self.content
        match self.kind:
            case "metrics":
                when, step, about = content["time"], content["step"], _about(run_id, content.get("of"))
                metrics = [
                    Metric(key, float(value), when, step, **about) for key, value in content["values"].items()
                ]
                client.log_batch(run_id, metrics=metrics)
            case "params":
                client.log_batch(run_id, params=[Param(*item) for item in content["values"].items()])
            case "tags":
                client.log_batch(run_id, tags=[RunTag(*item) for item in content["values"].items()])
            case "file":
                path = place / content["path"]
                send = client.log_artifacts if path.is_dir() else client.log_artifact
                send(run_id, str(path), content["folder"])
            case "dataset":
                used = InputTag("mlflow.data.context", content["context"])
                client.log_inputs(run_id, datasets=[DatasetInput(Dataset(**content["dataset"]), [used])])
            case "model":
                log_network(run_id, place / content["path"], Network(**content["network"]))
            case "uses":
                if (model := find_network(content["run"], content["name"])) is not None:
                    client.log_inputs(run_id, models=[LoggedModelInput(model.model_id)])


def _about(run_id: str, of: Mapping[str, str] | None) -> dict[str, str]:
    """What ties a metric to a model of the run and to a dataset, where there is such a model."""
    model = find_network(run_id, of["model"]) if of else None
    if of is None or model is None:
        return {}
    return {"model_id": model.model_id, "dataset_name": of["dataset"], "dataset_digest": of["digest"]}


class Unsent(BaseModel):
    """`tracking.json`: a run that the server does not have whole, with all that was logged to it.

    Times are in milliseconds since 1970, paths relative to the folder that the file is in.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    schema_version: Literal[1] = 1
    run_id: str
    experiment: str
    step: str
    pipeline: str = ""
    started: int
    ended: int
    calls: list[Call]


class Journal:
    """All that a run logs: sent at once while the server answers, and later while it does not.

    Args:
        run_id: of MLflow.
        place: folder from which the paths of files are seen.
        calls: that wait already.
    """

    def __init__(self, run_id: str, place: Path = Path(), calls: Sequence[Call] = ()):
        self.run_id, self.place = run_id, place
        self.calls = list(calls)
        self.waiting = list(calls)
        self.troubled = False
        self._next_try = 0.0
        self._refused: set[str] = set()

    def log(self, kind: Kind, **content: Any) -> None:
        """Send something, or let it wait where the server was away a moment ago. Never raises."""
        call = Call(kind=kind, content=content)
        self.calls.append(call)
        self.waiting.append(call)
        if time.monotonic() >= self._next_try:
            self.flush()

    def flush(self) -> None:
        """Send what waits, until it is done or the server does not answer. Never raises."""
        if not self.waiting:
            return
        if not self.troubled or self._answers():
            self.waiting = self._send_all()
        if self.waiting:
            self._next_try = time.monotonic() + PAUSE
        else:
            self._report_recovery()

    def end(self, status: str, when: int, patience: float) -> bool:
        """End the run once the server has all of it, which it is given `patience` seconds for.

        Returns:
            Whether it did; else the run stays as it is.
        """
        until = time.monotonic() + patience
        if self._ended(status, when):
            return True
        if patience:
            print(f"waiting up to {patience:.0f} s for MLflow to answer again", file=sys.stderr)
        while time.monotonic() < until:
            time.sleep(min(1.0, patience))
            if self._ended(status, when):
                return True
        return False

    def keep(self, **run: Any) -> None:
        """Write all that was logged into the folder, with the fields of `Unsent` that say of which run.

        Raises:
            OSError: the folder can't be written.
        """
        unsent = Unsent(run_id=self.run_id, calls=self.calls, **run)
        (self.place / FILE).write_text(unsent.model_dump_json(indent=1) + "\n", encoding="utf-8")

    def _ended(self, status: str, when: int) -> bool:
        self.flush()
        if self.waiting or (self.troubled and not self._answers()):
            return False
        try:
            with requests_within(None, retries=1):
                MlflowClient().set_terminated(self.run_id, status, when)
        except Exception as error:
            self._warn_of_loss(error)
            return False
        self._report_recovery()
        return True

    def _send_all(self) -> list[Call]:
        """Returns what the server did not take; one call at which it breaks does not hold up the others."""
        left: list[Call] = []
        for index, call in enumerate(self.waiting):
            try:
                with requests_within(None, retries=1):
                    call.send(self.run_id, self.place)
            except Exception as error:
                if _is_refusal(error):
                    self._warn_of_refusal(call, error)
                    continue
                self._warn_of_loss(error)
                if not self._answers():
                    return left + self.waiting[index:]
                left.append(call)
        return left

    def _answers(self) -> bool:
        try:
            with requests_within(ASKING):
                MlflowClient().get_run(self.run_id)
        except Exception as error:
            return _is_refusal(error)
        return True

    def _warn_of_loss(self, error: Exception) -> None:
        if not self.troubled:
            print(
                f"warning: MLflow no longer answers ({first_line(error)}); the step goes on, and what it logs "
                "is sent when the server answers again",
                file=sys.stderr,
            )
        self.troubled = True

    def _report_recovery(self) -> None:
        if self.troubled:
            print("MLflow answers again and has got all that was logged meanwhile", file=sys.stderr)
        self.troubled, self._next_try = False, 0.0

    def _warn_of_refusal(self, call: Call, error: Exception) -> None:
        why = first_line(error)
        if why not in self._refused:
            print(f"warning: MLflow refused {call.kind} ({why}); the rest is tracked", file=sys.stderr)
        self._refused.add(why)


def _is_refusal(error: Exception) -> bool:
    """Whether the server, or the file to be sent, is such that trying again would change nothing."""
    if getattr(error, "error_code", None) in _REFUSALS or isinstance(error, FileNotFoundError | TypeError):
        return True
    status = getattr(getattr(error, "response", None), "status_code", 0)
    # 400 is what MLflow says when its database fails, 401 may be a password in change, 408 and 429 ask to come back
    return 400 < status < 500 and status not in (401, 408, 429)
