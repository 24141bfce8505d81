"""Whether anything has changed since the last run that looked and ended well: what `--on-change` begins with.

A look reads no image. It compares digests; and where the registry's champion is another one since, the statistics
that `validate` has kept of these images with those of the images that the champion was trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from components.shared.digests import value_digest
from components.shared.errors import UserError, first_line
from components.shared.params.schema import Params, ValidationParams
from components.shared.registry.versions import find_champion
from components.shared.tracking.pipeline_run import PIPELINE, experiment_of
from components.shared.tracking.run import tracked

# tags of a look's run, besides the digest of all that it looked at: of what decides the images; and the version of
# the champion that these were compared with
DATA, COMPARED = "data.digest", "champion"
_PIPELINE_RUN = "pipeline.run"


def what_changed(params: Params, overrides: Sequence[str], state: str, ingest: str) -> str:
    """Why a run has to go on, in words; empty where it need not.

    What was looked at is kept in MLflow, as a run `look` of the dataset's experiment.

    Args:
        params: of the run.
        overrides: its options.
        state: a digest of data, options and code; empty where the data can't be seen.
        ingest: settings of ingest, which decide the images.

    Raises:
        UserError: MLflow does not answer.
    """
    name, data = params.data.name, value_digest(ingest)
    with tracked("look", {"overrides": " ".join(overrides)}, state, {}, name, nested=False) as looking:
        champion = find_champion(params.registry.champion_model).version or ""
        ended = _runs(name, PIPELINE, "tags.`pipeline.status` = 'SUCCEEDED'")
        well = {run.data.tags.get(_PIPELINE_RUN) for run in ended}
        looks = [run.data.tags for run in _runs(name, "look")]
        before: Mapping[str, str] = next((tags for tags in looks if tags.get(_PIPELINE_RUN) in well), {})
        why, compared = "", champion
        if not state:
            why = "data, options and code are changed, for the data can't be seen from here"
        elif state != before.get("params.digest"):
            why = "data, options and code are changed"
        elif champion and champion != before.get(COMPARED):
            try:
                drift = _drift(params, {tags.get(_PIPELINE_RUN) for tags in looks if tags.get(DATA) == data})
                if drift:
                    why = f"the images are other ones than those of the champion, version {champion}: {drift}"
            except UserError as error:
                print(f"look: not compared with the champion's images: {error}", flush=True)
                # to be asked again by the next look
                compared = before.get(COMPARED, "")
        looking.tags({"changed": str(bool(why)).lower(), DATA: data, COMPARED: compared})
    return why


def _runs(name: str, step: str, more: str = "") -> Sequence[Any]:
    """A step's runs in a dataset's experiment, the newest first."""
    wanted = f"tags.step = '{step}'" + (f" AND {more}" if more else "")
    client = mlflow.MlflowClient()
    try:
        return client.search_runs([experiment_of(name)], wanted, max_results=1000, order_by=["start_time DESC"])
    except MlflowException as error:
        raise UserError(f"MLflow does not tell its runs: {first_line(error)}; run again") from None


def _drift(params: Params, pipeline_runs: Collection[str | None]) -> str:
    """Where the images are not as the champion's, by the drift check of `validate`, but for images that moved.

    Args:
        params: of the run.
        pipeline_runs: those that were about the same images.

    Returns:
        The first expectation that fails, in words; empty where all hold.

    Raises:
        UserError: it can't be told.
    """
    # imported here: Great Expectations, which few looks need
    import pandas as pd

    from components.shared.checks.checker import Checker
    from components.shared.checks.drift import drift_table, summarize
    from components.shared.checks.expectations import content_expectations
    from components.shared.registry.accepted_dataset import accepted_dataset

    validated = _runs(params.data.name, "validate", "attributes.status = 'FINISHED'")
    kept = next((run for run in validated if run.data.tags.get(_PIPELINE_RUN) in pipeline_runs), None)
    if kept is None:
        raise UserError("no run of `validate` is known that was about these images")
    try:
        now = mlflow.artifacts.load_dict(f"{kept.info.artifact_uri}/statistics.json")
    except Exception as error:  # each artifact store has its own exceptions
        raise UserError(f"what `validate` found of these images can't be read ({first_line(error)})") from None
    accepted, origin = accepted_dataset(params.registry.champion_model)
    if accepted is None:
        raise UserError(origin)
    # the tables that `validate` made it of
    splits = pd.DataFrame([{"split": name, **split} for name, split in now.items()])
    counted = [{"split": name, **row} for name, split in now.items() for row in split["classes"]]
    classes = pd.DataFrame(counted, columns=["split", "class_name", "images"])
    names = list(dict.fromkeys(classes["class_name"]))
    table = drift_table(accepted.statistics, summarize(splits, classes, names))
    asked = content_expectations(
        {"drift": table, "splits": splits, "images": pd.DataFrame()}, len(names), _of_drift(params.validation)
    )
    with tempfile.TemporaryDirectory() as place:
        outcomes = Checker(Path(place), params.data.name).check("drift", table, asked)
    return next((outcome.line() for outcome in outcomes if not outcome.success), "")


def _of_drift(validation: ValidationParams) -> ValidationParams:
    wanted = {name: what for name, what in validation.expectations.items() if what and what.table == "drift"}
    return validation.model_copy(update={"expectations": wanted})
