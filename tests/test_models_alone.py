"""`models` needs Keras, its backend and NumPy, and nothing else of what this project installs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT

PROGRAM = """
import importlib, pkgutil, sys

# what TensorFlow itself needs stays; these are the project's
BLOCKED = {
    "components", "pipelines", "pydantic", "mlflow", "pandas", "sklearn", "scipy", "matplotlib", "PIL", "yaml",
    "tqdm", "tensorflow_datasets", "great_expectations", "kfp", "dvc", "hydra", "pyarrow",
}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())

import keras
import numpy as np

import models

names = [module.name for module in pkgutil.walk_packages(models.__path__, "models.")]
for name in names:
    importlib.import_module(name)

from models import encoders, methods
from models.augmentation import Augmentation
from models.batches import Batches
from models.classifier import Recipe, SupervisedTrainer, predict
from models.knn import knn_probabilities
from models.probes import fit_linear_probe
from models.training import EpochSeed

policy = Augmentation(brightness=0.4, hue=0.5, grey_probability=0.2, blur_probability=0.5)
images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
labels = np.arange(8) % 2
options = {
    "temperature": 0.1, "learnable_temperature": False, "negatives": "all", "projection": {"hidden": 8, "width": 4}
}
model = methods.build("simclr", encoders.build("conv", 32, 4), options, policy, 2, seed=0)
model.compile(optimizer="adam")
batches = Batches([(images, labels)], 8, 0)
history = model.fit(batches, shuffle=False, verbose=0, callbacks=[EpochSeed(0, batches)]).history
features = predict(encoders.deployable(model.encoder), images)
probe = fit_linear_probe(features, labels, 2, 1e-3, 10, 0).probabilities(features)
votes = knn_probabilities(features, labels, features, 2, 3)
recipe = Recipe("conv", 4, 32, 2, 1, 4, 0.0, policy, "float32")
trainer = SupervisedTrainer(recipe, (images, labels), (images, labels))
print(len(names), int(model.optimizer.iterations), history["contrastive_loss"][0], probe.shape, votes.shape,
      trainer.deployable().output_shape, sorted(BLOCKED & {name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.slow
def test_models_import_and_train_with_keras_and_numpy_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    modules, steps, loss, *rest = done.stdout.splitlines()[-1].split(" ", 3)
    assert int(modules) >= 14
    assert int(steps) == 1
    # 16 views: about log(15) = 2.7, at most 2/0.1 more
    assert 0 < float(loss) < 23
    assert rest == ["(8, 2) (8, 2) (None, 2) []"]
