"""What every step does around its work: check the inputs, write whole folders, track, and answer on a shell."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from components.shared.artifacts import Record, Result, input_digest, output_folder, write_record
from components.shared.cost import Cost, Meter, total
from components.shared.errors import exit_cleanly
from components.shared.installed import warn_if_stale
from components.shared.params.schema import (
    Params,
    params_digest,
    read_params,
    step_params,
    to_plain,
    validate_params,
)
from components.shared.steps import STEPS
from components.shared.tracking.live import live_curves
from components.shared.tracking.run import Run, tracked, under
from components.shared.training.distributed import is_chief, require_single


class Work:
    """A step in progress.

    Attributes:
        out: folder to write into; it takes its final name when the step ends well.
        run: the step's MLflow run.
        before: cost of earlier work that this is made of.
    """

    def __init__(self, step: str, out: Path, run: Run, params: Params, inputs: dict[str, str]):
        self.step, self.out, self.run, self.params, self.inputs = step, out, run, params, inputs
        self.before: Cost | None = None
        self._meter = Meter(step)

    def common(self) -> dict[str, Any]:
        """The fields that every record has."""
        return {
            "step": self.step,
            "params": to_plain(self.params),
            "params_digest": params_digest(self.params),
            "inputs": self.inputs,
            "seconds": round(self._meter.seconds, 3),
            "mlflow_run_id": self.run.id,
            "cost": total([self._meter.read(), self.before]),
        }

    def finish(
        self,
        dataset_digest: str,
        metrics: Mapping[str, float],
        model: Mapping[str, str] | None = None,
        **details: Any,
    ) -> Result:
        """Write `result.json` and log its metrics, as `result/…`; call it last.

        `model` is what `Run.model` gave of the model that they are about.
        """
        result = Result(
            **self.common(), dataset_digest=dataset_digest, metrics=dict(metrics), details=dict(details)
        )
        self.record(result)
        self.run.metrics(under("result", metrics), of=model)
        return result

    def record(self, record: Record) -> None:
        """Write the folder's record and attach it to the MLflow run."""
        write_record(self.out, record)
        if record.cost is not None:
            self.run.metrics(under("cost", record.cost.model_dump()))
        name = "manifest.json" if (self.out / "manifest.json").exists() else "result.json"
        self.run.file(self.out / name)


@contextmanager
def working(
    step: str,
    out: Path,
    params: Params,
    inputs: Mapping[str, Path],
    name: str,
    seed: int | None = None,
    together: bool = False,
) -> Iterator[Work]:
    """Surround a step's work: digests of its inputs, a folder written whole or not at all, an MLflow run.

    Args:
        step: the step's name.
        out: the output folder.
        params: what the step was handed.
        inputs: name → folder of each input; they must be finished.
        name: the dataset's name.
        seed: of the replicate that the work is about, None where it is about all of them.
        together: several processes do the work; only the first one's output and run are kept.

    Raises:
        UserError: there are several processes where one must work, an input is missing, the folder can't be
            written, or the tracking server does not answer.
    """
    if not together:
        require_single(step)
    out = Path(out)
    digests = {key: input_digest(Path(folder)) for key, folder in inputs.items()}
    if not is_chief():
        with tempfile.TemporaryDirectory() as folder:
            yield Work(step, Path(folder), Run(), params, digests)
        return
    with (
        output_folder(out) as partial,
        tracked(step, to_plain(params), params_digest(params), digests, name, seed, partial, out) as run,
    ):
        yield Work(step, partial, run, params, digests)


def command_line(step: str, function: Callable[..., Any]) -> None:
    """Run a step from a shell: `python -m components.<step> [--params FILE] [--<input> DIR …] [--out DIR]`.

    Args:
        step: the step's name.
        function: called as `function(*input folders, out, params)`, the table of steps names the folders; with a
            seed besides for each replicate of a step that has any, and with `overrides` where the table says so.
    """
    # as `start_backend` does: a source of images may import TensorFlow before it
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    inputs, out = STEPS[step].inputs, STEPS[step].out

    def main() -> None:
        parser = argparse.ArgumentParser(prog=f"python -m components.{step}", description=function.__doc__)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="default: params.yaml")
        for name in inputs:
            parser.add_argument(f"--{name}", type=Path, default=Path(name), help=f"default: {name}/")
        parser.add_argument("--out", type=Path, default=Path(out), help=f"default: {out}/")
        options = parser.parse_args()
        warn_if_stale()
        values, where = read_params(options.params), str(options.params)
        checked = partial(step_params, step, values, where)
        folders = {name: getattr(options, name) for name in inputs}
        if not STEPS[step].replicates:
            told = {}
            if STEPS[step].overrides:
                # imported here: Hydra, which most steps start without
                from components.shared.params.overrides import overrides_of

                told["overrides"] = overrides_of(values)
            function(*folders.values(), options.out, checked(), **told)
            return
        # imported here: it surrounds steps itself
        from components.shared.replicates import train_replicates

        runtime = validate_params(values, where, ["runtime"]).runtime
        with live_curves(step):
            train_replicates(step, function, folders, options.out, checked, runtime.replicates, runtime.threads)

    exit_cleanly(main)
