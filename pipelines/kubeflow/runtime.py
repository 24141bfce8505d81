"""What a component does inside its container: it hands paths and parameters to a step, and shows what came out.

The components' own code is copied into the compiled pipeline, so it is one call to here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException

from components.shared.artifacts import CHAMPION_RECORD
from components.shared.code import code_digest
from components.shared.digests import value_digest
from components.shared.errors import UserError, first_line, one_line
from components.shared.evaluation.gate import read_blessing
from components.shared.params.composing import compose_params
from components.shared.params.overrides import overrides_of
from components.shared.params.schema import from_plain, select, to_plain
from components.shared.replicates import gather as gather_replicates
from components.shared.steps import STEPS
from components.shared.tracking.client import connect
from components.shared.tracking.pipeline_run import PipelineRun, title
from components.shared.training.side_by_side import keep_to
from pipelines.kubeflow import CACHE, KEEP_DAYS, PAGE, RUN, pages
from pipelines.kubeflow.changes import what_changed
from pipelines.kubeflow.leftovers import remove_unused
from pipelines.kubeflow.versions import NOT_VISIBLE, data_version

# Kubernetes shows what is written there as the reason why a container ended
_TERMINATION_LOG = Path("/dev/termination-log")


def settings_of_steps(overrides: Sequence[str], data: str, replicates: str) -> dict[str, str]:
    """Check the options and divide them: each step gets only what its result depends on.

    Args:
        overrides: such as `data=cifar10` or `runtime.epochs=200`.
        data: names the state of the data; empty: found by looking at the source.
        replicates: JSON of the seeds that the pipeline has tasks for. The settings are those of every replicate and
            do not list them, so that other seeds beside it make none run again.

    Returns:
        Step, and `gather` → JSON of its parameters and the version of its code; of `ingest` also that of the data,
        of `evaluate` and `register` the run's overrides.
        Equal text means that KFP may answer from its cache.
    """
    _quiet()
    with user_errors_in_one_line():
        params, values = compose_params(list(overrides))
        settings: dict[str, dict[str, Any]] = {
            step: {"params": to_plain(select(params, step)), "code": code_digest(step, params)} for step in STEPS
        }
        compiled, wanted = json.loads(replicates), list(params.runtime.replicates)
        if wanted != compiled:
            raise UserError(
                f"runtime.replicates = {wanted}: this pipeline was compiled for {compiled}; compile it again with "
                f"runtime.replicates={_compact(wanted)}, or run it with runtime.replicates={_compact(compiled)}"
            )
        # of evaluate too, which so runs again with other checks of the data: its report would tell another run's
        for step in (step for step in STEPS if STEPS[step].overrides):
            settings[step]["overrides"] = overrides_of(values)
        settings["gather"] = {"code": code_digest("shared/replicates", params)}
        settings["ingest"]["data"] = data or data_version(params.data)
        chosen = " ".join(overrides) or "the defaults"
        print(f"compose: {chosen}", flush=True)
        # in the order of the options: it is the one in which expectations are asked and shown
        return {step: json.dumps(value) for step, value in settings.items()}


def state_of(settings: Mapping[str, str]) -> str:
    """A digest of what `settings_of_steps` found, data, options and code; empty where the data can't be seen."""
    if json.loads(settings["ingest"])["data"] == NOT_VISIBLE:
        return ""
    return value_digest(dict(settings))


def has_changed(overrides: Sequence[str], state: str, ingest: str) -> bool:
    """Whether a run has to go on; says why.

    Args:
        overrides: the options of the run.
        state: of `state_of`.
        ingest: settings of ingest.
    """
    _quiet()
    with user_errors_in_one_line():
        why = what_changed(compose_params(list(overrides))[0], overrides, state, ingest)
    unchanged = "data, options and code are unchanged since the last run that ended well; nothing is done"
    print(f"look: {why or unchanged}", flush=True)
    return bool(why)


def run(
    step: str, settings: str, inputs: Sequence[Any], out: Any, seed: int | None = None, **artifacts: Any
) -> Any:
    """Run one step and fill what the Kubeflow page shows of it.

    Args:
        step: the step's name.
        settings: what `settings_of_steps` made for it.
        inputs: KFP artifacts of the steps before, in the order of the step function's arguments.
        out: KFP artifact of the step's folder.
        seed: of the replicate; None for a step that has none.
        **artifacts: `metrics`, `page` and `confusion`: artifacts for the page.

    Returns:
        What the step function returned.
    """
    _quiet()
    with user_errors_in_one_line():
        given = json.loads(settings)
        params = from_plain(given["params"], step)
        options: dict[str, Any] = {"overrides": given["overrides"]} if STEPS[step].overrides else {}
        if STEPS[step].keeps and CACHE in os.environ:
            options["checkpoints"] = Path(os.environ[CACHE]) / step
            if KEEP_DAYS in os.environ:
                remove_unused(options["checkpoints"], float(os.environ[KEEP_DAYS]))
        folders = [Path(artifact.path) for artifact in inputs]
        if seed is not None:
            # KFP hands whole numbers on as fractions
            options["seed"] = int(seed)
            keep_to(params.runtime.threads, alone=True)
        result = _function(step)(*folders, Path(out.path), params, **options)
    out.metadata.update(pages.facts(Path(out.path)))
    pages.show(step, Path(out.path), folders, **artifacts)
    return result


def gather(step: str, replicates: Mapping[int, Any], dataset: Any, out: Any, metrics: Any) -> None:
    """Make a step's folder of its replicates' folders, and show what they are together.

    Args:
        step: the step's name.
        replicates: seed → KFP artifact of its folder.
        dataset: KFP artifact of the dataset.
        out: KFP artifact of the folder.
        metrics: KFP artifact for the means over replicates.
    """
    _quiet()
    folders = {seed: Path(artifact.path) for seed, artifact in replicates.items()}
    with user_errors_in_one_line():
        gather_replicates(step, folders, Path(out.path), Path(dataset.path))
    out.metadata.update(pages.facts(Path(out.path)))
    pages.show(step, Path(out.path), [], metrics=metrics)


def champion(settings: str) -> str:
    """Run the step `champion`; returns its record as text, for `evaluate`.

    Its folder is no artifact: KFP tells artifacts apart by the task that made them, so one that always runs would
    make `evaluate` run again every time.
    """
    _quiet()
    with user_errors_in_one_line(), TemporaryDirectory() as place:
        folder = Path(place) / "champion"
        _function("champion")(folder, from_plain(json.loads(settings)["params"], "champion"))
        return (folder / CHAMPION_RECORD).read_text(encoding="utf-8")


def evaluate(settings: str, inputs: Sequence[Any], champion: str, out: Any, **artifacts: Any) -> Any:
    """Run the step `evaluate`, with what `champion` returned as the folder that the step wants; else as `run`."""
    with TemporaryDirectory() as place:
        (Path(place) / CHAMPION_RECORD).write_text(champion, encoding="utf-8")
        # as an artifact of KFP
        return run("evaluate", settings, [*inputs, SimpleNamespace(path=place)], out, **artifacts)


def refuse(evaluation: Any, page: Any) -> None:
    """Say on the page why nothing is registered. The run ends well: a refusal is a result."""
    with user_errors_in_one_line():
        blessing = read_blessing(Path(evaluation.path))
    print(f"not registered, because it is {blessing.verdict}:", flush=True)
    for reason in blessing.reasons():
        print(f"  {reason}", flush=True)
    Path(page.path).write_text(pages.outcome(Path(evaluation.path), None), encoding="utf-8")


def record(status: Any, overrides: Sequence[str]) -> None:
    """Keep in MLflow how the run ended: in the run of the pipeline its state, a link and the options.

    Args:
        status: KFP's `PipelineTaskFinalStatus` of all steps.
        overrides: the options of the run.
    """
    _quiet()
    name, values = "runs", dict[str, Any]()  # of a run that could not tell its dataset
    with suppress(UserError):
        params, values = compose_params(list(overrides))
        name = params.data.name
    tags = {"pipeline.status": str(status.state), "mlflow.runName": title(name, values)}
    if status.error_message:
        tags["pipeline.error"] = str(status.error_message)[:5000]
    if os.environ.get(PAGE) and os.environ.get(RUN):
        tags["pipeline.link"] = f"{os.environ[PAGE].rstrip('/')}/#/runs/details/{os.environ[RUN]}"
    with user_errors_in_one_line():
        connect()
        try:
            ended = "FINISHED" if status.state == "SUCCEEDED" else "FAILED"
            PipelineRun.of(name).finish(ended, tags, {"overrides": " ".join(overrides)})
        except MlflowException as error:
            raise UserError(f"MLflow does not take how the run ended: {first_line(error)}; run again") from None
        print(f"record: the run ended as {status.state}", flush=True)


@contextmanager
def user_errors_in_one_line() -> Iterator[None]:
    """End the container on a `UserError` with one line instead of a traceback, also where Kubernetes shows it."""
    try:
        yield
    except UserError as error:
        line = one_line(error)
        print(f"error: {line}", file=sys.stderr, flush=True)
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            with suppress(OSError):
                _TERMINATION_LOG.write_text(line[:4096], encoding="utf-8")
        sys.exit(2)


def _function(step: str) -> Callable[..., Any]:
    # one at a time: each step has libraries of its own
    return getattr(import_module(f"components.{step}"), step)


def _compact(replicates: Sequence[int]) -> str:
    return json.dumps(list(replicates), separators=(",", ":"))


def _quiet() -> None:
    """Let the steps' own lines be seen: as their command lines, and without what KFP makes every library log."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger().setLevel(logging.WARNING)
