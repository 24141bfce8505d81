"""The component that puts the replicates of a step together.

KFP takes no list of artifacts of several tasks: each needs an input of its own. So the component's source is
written for the seeds that the pipeline is compiled for. It reads like those in `components.py`.
"""

from __future__ import annotations

import runpy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfp import dsl

ABOUT = "Put the replicates of a step together."
_SOURCE = '''\
from kfp import dsl


def gather(
    step: str,
    settings: str,
    dataset: dsl.Input[dsl.Dataset],
{inputs}
    gathered: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """{about}

    Args:
        step: The step's name.
        settings: Code version.
        dataset: Images and labels.
{descriptions}

    Returns:
        gathered: A folder of each replicate, the answers of all, and the classifier that may be registered.
        metrics: Means over the replicates, and their sample standard deviations.
    """
    from pipelines.kubeflow import runtime

    replicates = {{{replicates}}}
    runtime.gather(step, replicates, dataset, gathered, metrics)
'''


def gather_component(replicates: Sequence[int], image: str) -> Any:
    """The component for these seeds; its inputs are named by `input_of`."""
    source = _SOURCE.format(
        about=ABOUT,
        inputs="\n".join(f"    {input_of(seed)}: dsl.Input[dsl.Model]," for seed in replicates),
        descriptions="\n".join(f"        {input_of(seed)}: What seed {seed} made." for seed in replicates),
        replicates=", ".join(f"{seed}: {input_of(seed)}" for seed in replicates),
    )
    # a file, because KFP reads a function's source from where it was defined
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gather.py"
        file.write_text(source, encoding="utf-8")
        function = runpy.run_path(str(file))["gather"]
        return dsl.component(function, base_image=image, install_kfp_package=False)


def input_of(seed: int) -> str:
    """Name of the input for a replicate."""
    return f"replicate_{seed}"
