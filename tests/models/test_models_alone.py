"""`models` runs where nothing is installed but Keras, NumPy and a backend, and what these need themselves."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic_core import to_jsonable_python

from tests.helpers.datasets import make_arrays
from tests.helpers.options import augmentation, head, method
from tests.helpers.repository import ROOT

INSTALLED = ("keras", "numpy", "jax")
MISSING = (
    "tensorflow", "torch", "mlflow", "pydantic", "pandas", "sklearn", "matplotlib", "yaml", "tqdm", "hydra", "dvc",
    "tensorflow_datasets", "great_expectations", "pyarrow", "PIL", "kfp", "components", "pipelines", "pytest",
)  # fmt: skip
PROGRAM = """
import sys

site, missing, given, options, saved = sys.argv[1:]
sys.path.append(site)

import importlib, json, pkgutil

found = []
for name in json.loads(missing):
    try:
        importlib.import_module(name)
    except ImportError:
        continue
    found.append(name)

import keras
import numpy as np

import models

names = [module.name for module in pkgutil.walk_packages(models.__path__, "models.")]
for name in names:
    importlib.import_module(name)

from models import encoders, methods
from models.augmentation import Augmentation
from models.batches import Batches
from models.classifier import predict
from models.methods.shared.heads import HeadOptions
from models.knn import knn_probabilities
from models.optimizers import OptimizerOptions
from models.probes import fit_linear_probe
from models.training import EpochSeed, jit

arrays = np.load(given)
conv = encoders.options_type("conv")(name="conv", width=16, normalization="none", weights=None)
groups = {"projection": HeadOptions, "optimizer": OptimizerOptions, "augmentation": Augmentation}
options = {name: groups[name](**value) if name in groups else value for name, value in json.loads(options).items()}
keras.utils.set_random_seed(0)
method = methods.build(encoders.build(conv, 32), methods.options_type("simclr")(**options), 3, seed=0)
method.compile(optimizer=keras.optimizers.Adam(3e-3), jit_compile=jit())
batches = Batches([(arrays["images"], arrays["labels"])], 32, 0)
losses = method.fit(
    batches, shuffle=False, epochs=16, verbose=0, callbacks=[EpochSeed(0, batches)]
).history["contrastive_loss"]

encoder = encoders.deployable(method.encoder)
encoder.save(saved)
features = predict(encoder, arrays["images"])
loaded = predict(keras.saving.load_model(saved, compile=False), arrays["images"])
probe = fit_linear_probe(features, arrays["labels"], 3, 1e-3, 100, 0).probabilities(features)
votes = knn_probabilities(features, arrays["labels"], predict(encoder, arrays["new"]), 3, 5)
print(json.dumps({
    "found": found,
    "backend": keras.backend.backend(),
    "modules": names,
    "outside": sorted(path for module in list(sys.modules.values()) if "site-packages" in
                      (path := getattr(module, "__file__", None) or "") and not path.startswith(site)),
    "steps": int(method.optimizer.iterations),
    "losses": losses,
    "the same after loading": bool(np.array_equal(features, loaded)),
    "probe": float((probe.argmax(axis=1) == arrays["labels"]).mean()),
    "knn": float((votes.argmax(axis=1) == arrays["new_labels"]).mean()),
}))
"""


def closure(names):
    """The distributions that these need, themselves included."""
    found, left = {}, list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name not in found:
            found[name] = importlib.metadata.distribution(name)
            needed = map(Requirement, found[name].requires or [])
            left += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with nothing but these distributions and `models`, as links."""
    folder = tmp_path_factory.mktemp("alone") / "site"
    folder.mkdir()
    for distribution in closure(INSTALLED).values():
        # scripts lie outside, under ../../../bin
        for top in {file.parts[0] for file in distribution.files if file.parts[0] != ".."}:
            if top != "__pycache__":
                (folder / top).symlink_to(distribution.locate_file(top))
    (folder / "models").symlink_to(ROOT / "models")
    return folder


def test_little_is_needed():
    needed = set(closure(INSTALLED))
    assert {"keras", "numpy", "jax", "jaxlib", "h5py"} <= needed
    assert len(needed) < 25
    assert not needed & {"tensorflow", "tensorflow-cpu", "torch", "pandas", "pydantic", "pillow"}


@pytest.mark.slow
def test_models_train_where_only_keras_numpy_and_jax_are_installed(site, tmp_path):
    arrays = make_arrays({"train": 64, "test": 30}, classes=3)
    (images, labels), (new, new_labels) = arrays["train"], arrays["test"]
    np.savez(tmp_path / "given.npz", images=images, labels=labels, new=new, new_labels=new_labels)
    mild = augmentation(crop_area=(0.5, 1.0), brightness=0.3, contrast=0.3, saturation=0.3)
    chosen = method("simclr", mild, projection=to_jsonable_python(head(hidden=16, width=8)))
    given = [
        site,
        json.dumps(MISSING),
        tmp_path / "given.npz",
        json.dumps(to_jsonable_python(chosen)),
        tmp_path / "encoder.keras",
    ]
    # -S: no site-packages; -I: nor the current folder, the user's packages or Python's variables
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, *map(str, given)],
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path), "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["found"] == []
    assert told["outside"] == []
    assert told["backend"] == "jax"
    # each file is a module; that of `models` itself is not listed
    assert len(told["modules"]) == len(list((ROOT / "models").rglob("*.py"))) - 1
    assert told["steps"] == 16 * 2
    assert np.mean(told["losses"][-3:]) < told["losses"][0] - 0.1
    assert told["the same after loading"]
    # three classes: guessing gives a third
    assert told["probe"] > 0.6
    assert told["knn"] > 0.5
