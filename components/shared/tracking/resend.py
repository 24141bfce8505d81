"""Making a run whole that a step could not log, from what the step left in its folder."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.shared.artifacts import read_json
from components.shared.errors import UserError, first_line
from components.shared.tracking.client import experiment_id, if_there
from components.shared.tracking.journal import FILE, Call, Unsent, is_refusal

# of a run made anew, because the server does not know the one that the step had
RESENT = "resent.run"
FINISHED = "FINISHED"


def waiting_folders(place: Path) -> list[Path]:
    """The steps' folders in `place` whose runs were not logged as a whole."""
    return sorted(path.parent for path in place.glob(f"*/{FILE}"))


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
        run_id = _find_or_make(client, unsent)
        if client.get_run(run_id).info.status == FINISHED:
            return f"{folder}: run {run_id} is whole"
        refused = [why for call in unsent.calls if (why := _refusal(call, run_id, folder)) is not None]
        client.set_terminated(run_id, FINISHED, unsent.ended)
    except (MlflowException, OSError) as error:
        raise UserError(f"{folder}: not all was sent ({first_line(error)}); run the same command again") from None
    refusals = f"; MLflow refused {len(refused)} calls ({refused[0]})" if refused else ""
    return f"{folder}: run {run_id} is whole now{refusals}"


def _find_or_make(client: MlflowClient, unsent: Unsent) -> str:
    if if_there(client.get_run, unsent.run_id) is not None:
        return unsent.run_id
    experiment = experiment_id(unsent.experiment)
    made = client.search_runs([experiment], f"tags.`{RESENT}` = '{unsent.run_id}'", max_results=1)
    if made:
        return str(made[0].info.run_id)
    run = client.create_run(experiment, unsent.started, {RESENT: unsent.run_id}, unsent.step)
    return str(run.info.run_id)


def _refusal(call: Call, run_id: str, folder: Path) -> str | None:
    """Send a call; returns why the server refuses it, if it does."""
    try:
        call.send(run_id, folder)
    except Exception as error:
        if not is_refusal(error):
            raise
        return first_line(error)
    return None
