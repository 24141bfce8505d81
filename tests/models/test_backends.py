"""The same code gives the same numbers, to float32's rounding, on TensorFlow, JAX and PyTorch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from models import encoders, losses, methods
from tests.helpers.repository import ROOT

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "tests" / "helpers" / "backend_numbers.py"
# PyTorch is a choice of the user's, not part of the environment
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"no {name} here"))
    if name == "torch"
    else name
    for name in ("jax", "torch")
]
# Largest difference allowed, as a fraction of an array's largest entry. Fifty layers with batch statistics of four
# images multiply the rounding to some 1e-4; all other numbers differ by less than a tenth of what is allowed.
TOLERANCE = {"losses": 1e-4, "augmentation": 3e-5, "encoders": 5e-4, "methods": 1e-4}
DEVICES = 8
SEVERAL = f"jax on {DEVICES} devices"
# the middle two keep the compilation short; by the last, devices that wait for each other on a busy machine do not
# give up
SIMULATED = (
    f"--xla_force_host_platform_device_count={DEVICES} --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
# What is 0 but for rounding, such as the gradient of a bias before batch normalisation, is compared on this scale.
SMALL = 1e-2


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """Backend → arrays by name; all installed backends at once, each in a process of its own."""
    folder = tmp_path_factory.mktemp("backends")
    names = ["tensorflow", "jax", SEVERAL, *(["torch"] if importlib.util.find_spec("torch") else [])]
    processes = {}
    for name in names:
        # the same kind of device for all: a graphics card rounds in its own way
        environment = {
            **os.environ, "KERAS_BACKEND": name.split()[0], "CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"
        }  # fmt: skip
        arguments = [folder / f"{name}.npz"]
        if name == SEVERAL:
            environment["XLA_FLAGS"] = SIMULATED
            arguments.append(str(DEVICES))
        processes[name] = subprocess.Popen(
            [sys.executable, SCRIPT, *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    arrays = {}
    for name, process in processes.items():
        output = process.communicate(timeout=900)[0]
        assert process.returncode == 0, f"{name}: {output}"
        with np.load(folder / f"{name}.npz") as found:
            arrays[name] = dict(found)
    return arrays


def test_every_loss_augmentation_encoder_and_method_is_compared(numbers):
    expected = {f"losses/{name}" for name in losses.__all__}
    expected |= {"augmentation/everything", "augmentation/translated"}
    expected |= {f"encoders/{name}" for name in encoders.NAMES}
    expected |= {f"methods/{name}" for name in methods.NAMES}
    assert {"/".join(name.split("/")[:2]) for name in numbers["tensorflow"]} == expected


@pytest.mark.parametrize("group", list(TOLERANCE))
@pytest.mark.parametrize("backend", OTHERS)
def test_a_backend_gives_the_numbers_of_tensorflow(numbers, backend, group):
    expected = {name: array for name, array in numbers["tensorflow"].items() if name.startswith(f"{group}/")}
    found = {name: array for name, array in numbers[backend].items() if name.startswith(f"{group}/")}
    assert_close(found, expected, TOLERANCE[group])


def test_eight_devices_give_the_loss_gradients_metrics_and_weights_of_one(numbers):
    expected = {name: array for name, array in numbers["jax"].items() if name.startswith("methods/")}
    assert {name.split("/")[1] for name in expected} == set(methods.NAMES)
    assert_close(numbers[SEVERAL], expected, TOLERANCE["methods"])


def assert_close(found, expected, tolerance):
    """All arrays are there and differ by no more than a fraction of each one's largest entry."""
    assert list(found) == list(expected)
    apart = {}
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert np.isfinite(array).all(), name
        scale = max(np.abs(array).max(initial=0), SMALL)
        difference = np.abs(found[name].astype("float64") - array).max(initial=0) / scale
        if not difference <= tolerance:
            apart[name] = float(difference)
    assert apart == {}


def test_the_numbers_that_are_compared_say_something(numbers):
    arrays = numbers["tensorflow"]
    # no gradient flows through a target
    stopped = {"losses/sinkhorn/gradient of scores", "losses/dino/gradient of teacher"}
    gradients = {name for name in arrays if "/gradient of " in name}
    assert len(gradients) > len(stopped)
    assert {name for name in gradients if not arrays[name].any()} == stopped
    for name in methods.NAMES:
        before = {key: value for key, value in arrays.items() if key.startswith(f"methods/{name}/step 0/")}
        after = [arrays[key.replace("step 0", "step 2")] for key in before]
        changed = [not np.array_equal(a, b) for a, b in zip(before.values(), after, strict=True)]
        # networks learn, their momentum copies follow, queues fill; the copies' biases may still be 0
        assert sum(changed) > 0.8 * len(changed), name
