"""Whole steps on one device and on eight simulated ones, for `test_devices.py` to compare.

    KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=8 python device_steps.py DATASET OUT

writes the folders `OUT/<devices>/encoder` and `OUT/<devices>/baseline`, `OUT/resumed/encoder` of a training that
one device took over from eight, and `OUT/shares.json`: of each array on eight devices, all its rows and those that
one device holds.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from components.baseline import baseline
from components.pretrain import pretrain
from components.shared.artifacts import Dataset, Result, write_record
from components.shared.params.composing import compose_params
from components.shared.params.schema import select
from components.shared.training.checkpoints import Checkpoint
from components.shared.training.choice import Choice, write_choice
from models.classifier import Recipe

EIGHT = 8
# 12 validation images and batches of 24 labelled ones: what eight devices can and can't share out equally
SETTINGS = (
    "encoder.width=8", "method.projection.hidden=16", "method.projection.width=8", "runtime.batch_size=32",
    "runtime.epochs=2", "runtime.replicates=[0]", "optimizer=adam", "method.projection.batch_norm=false",
    "monitor.every=2", "encoder=conv", "supervised.batch_size=24",
)  # fmt: skip


def params(step, devices):
    """What a step is handed."""
    return select(compose_params([*SETTINGS, f"runtime.devices={devices}"])[0], step)


def watch(shares):
    """Note which part of an array lies on one device once the step is compiled, and where the weights are."""
    import jax

    from models.methods.shared.base import Method

    embed = Method.embed

    def watched(self, views, features):
        outputs = embed(self, views, features)
        for name, array in {"views": views, "features": features, "embeddings": outputs["z"]}.items():
            shape = tuple(array.shape)

            def note(sharding, name=name, shape=shape):
                shares[name] = [shape[0], sharding.shard_shape(shape)[0]]

            jax.debug.inspect_array_sharding(array, callback=note)
        return outputs

    def save(self, epoch, rows, variables, save=Checkpoint.save):
        save(self, epoch, rows, variables)
        shares["weights"] = sorted({len(variable.value.devices()) for variable in variables})
        if epoch == 1:
            shutil.copytree(self.path.parent, self.path.parent.with_name("kept"))

    Method.embed, Checkpoint.save = watched, save


def write_search(dataset, folder):
    """What a search leaves that chose a short training for the baseline."""
    options, data = params("baseline", 1).supervised, Dataset(dataset)
    same = {name: getattr(options, name) for name in ("batch_size", "optimizer", "schedule", "milestones")}
    recipe = Recipe(augmentation=options.weak, learning_rate=0.001, weight_decay=0.0001, epochs=4, **same)
    labels = data.labels("validation")
    folder.mkdir(parents=True)
    choice = Choice(recipe=recipe, refit=False, held_out="validation")
    write_choice(folder, "baseline", choice, np.full((len(labels), data.classes), 1 / data.classes), labels)
    known = {"step": "search", "params": {}, "params_digest": "", "inputs": {}, "seconds": 0.0, "mlflow_run_id": ""}
    write_record(folder, Result(**known, dataset_digest=data.manifest.digest, metrics={}))
    return folder


def main(dataset, out):
    """Run all steps; what is written lies below the folder `out`."""
    save, shares, searched = Checkpoint.save, {}, write_search(dataset, out / "search")
    for devices in (1, EIGHT):
        if devices == EIGHT:
            watch(shares)
        pretrain(dataset, out / str(devices) / "encoder", params("pretrain", devices), 0, out / "states")
        baseline(dataset, searched, out / str(devices) / "baseline", params("baseline", devices), 0)
    (out / "shares.json").write_text(json.dumps(shares))
    Checkpoint.save = save
    pretrain(dataset, out / "resumed" / "encoder", params("pretrain", 1), 0, out / "kept")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
