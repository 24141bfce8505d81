"""Making a run whole that a step could not log, from what the step left in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from components.shared.artifacts import read_json
from components.shared.errors import UserError, first_line
from components.shared.repository import in_repository
from components.shared.tracking.client import connect, experiment_id, if_there
from components.shared.tracking.journal import FILE, Journal, Unsent
from components.shared.tracking.pipeline_run import PipelineRun

# of a run made anew, because the server does not know the one that the step had
RESENT = "resent.run"
FINISHED = "FINISHED"


def resend_all(folders: Sequence[Path] = ()) -> None:
    """Make each folder's run at `MLFLOW_TRACKING_URI` whole; nothing changes in the folders.

    Args:
        folders: of steps that have ended; none are all in the repository that have something to send.

    Raises:
        UserError: a folder holds nothing to send, or the server does not take all of it.
    """
    if not folders:
        root = in_repository(".")
        # of steps, and of their replicates
        folders = sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{FILE}"))
    if not folders:
        print("nothing waits to be sent")
        return
    connect()
    for folder in folders:
        print(resend(folder))


def resend(folder: Path) -> str:
    """Send what `tracking.json` in a step's folder holds, and end the run. Nothing in the folder changes.

    Done again it changes nothing. A server that does not know the run, because it is another one or has lost its
    database, gets it as a new run, with the tag `resent.run`.

    Args:
        folder: of a step that has ended.

    Returns:
        What was done, in a line.

    Raises:
        UserError: there is no such file or it can't be read, or the server does not take all of it.
    """
    if not (folder / FILE).is_file():
        raise UserError(f"{folder / FILE}: missing; name the folder of a step that could not log all")
    unsent = read_json(folder / FILE, Unsent)
    client = MlflowClient()
    try:
        run = _find_or_make(client, unsent)
    except (MlflowException, OSError) as error:
        raise UserError(f"{folder}: not all was sent ({first_line(error)}); run the same command again") from None
    run_id = str(run.info.run_id)
    if run.info.status == FINISHED:
        return f"{folder}: run {run_id} is whole"
    if not Journal(run_id, folder, unsent.calls).end(FINISHED, unsent.ended, patience=0):
        raise UserError(f"{folder}: not all was sent; run the same command again")
    if run_id == unsent.run_id:
        PipelineRun(unsent.pipeline).end(FINISHED)
    return f"{folder}: run {run_id} is whole now"


def _find_or_make(client: MlflowClient, unsent: Unsent) -> Run:
    known = if_there(client.get_run, unsent.run_id)
    if known is not None:
        return known
    experiment = experiment_id(unsent.experiment)
    made = client.search_runs([experiment], f"tags.`{RESENT}` = '{unsent.run_id}'", max_results=1)
    return made[0] if made else client.create_run(experiment, unsent.started, {RESENT: unsent.run_id}, unsent.step)
