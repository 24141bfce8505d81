"""Numbers of losses, augmentation, encoders and methods on one backend, for `test_backends.py` to compare.

    KERAS_BACKEND=jax python tests/helpers/backend_numbers.py OUT [DEVICES]

writes an .npz of arrays by name; with DEVICES those of the methods alone, on so many devices. Inputs, initial
weights and the augmentation's random numbers come from NumPy, so that they are the same on every backend.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from components.shared.training.backend import start_backend

start_backend()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402
from pydantic_core import to_jsonable_python  # noqa: E402

from components.shared.training.devices import on_devices  # noqa: E402
from models import encoders, losses, methods  # noqa: E402
from models.augmentation import Augmentation, augment  # noqa: E402
from models.training import jit  # noqa: E402
from tests.helpers.options import augmentation, checked, method, network  # noqa: E402

BACKEND = keras.backend.backend()
ROWS, WIDTH = 16, 8
STEPS = 2
IMAGE = 16


def array(name, *shape):
    """Standard normal float32 numbers that depend on the name alone."""
    return np.random.default_rng(list(name.encode())).standard_normal(shape).astype("float32")


# What a loss is called with, by the names of its parameters; one with a default keeps it.
EMBEDDINGS = (
    "z", "z1", "z2", "nn1", "p", "queries", "keys", "scores", "scores1", "scores2", "student", "teacher",
)  # fmt: skip
ARGUMENTS = {
    **{name: array(name, ROWS, WIDTH) for name in EMBEDDINGS},
    "queue": array("queue", 20, WIDTH),
    "center": array("center", WIDTH),
    # three classes, and two unlabelled rows
    "labels": np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 2, -1, -1, 2, 1, 0, 2]),
    "temperature": 0.1,
    "student_temperature": 0.1,
    "teacher_temperature": 0.04,
    "off_diagonal": 0.005,
    "epsilon": 0.05,
    "iterations": 3,
}


def public_losses():
    """Name → function of all that `models.losses` offers."""
    return {name: getattr(losses, name) for name in sorted(losses.__all__)}


def arguments(function):
    """The arguments by name, from `ARGUMENTS`."""
    required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    missing = [name for name in required if name not in ARGUMENTS]
    if missing:
        sys.exit(f"{function.__name__}: say in ARGUMENTS of {Path(__file__).name} what to pass for {missing}")
    return {name: ARGUMENTS[name] for name in required}


def value_and_gradients(function, inputs):
    """A function's array, and the gradients of a random mixture of its entries; 0 where none flows."""

    def mixture(*given):
        value = function(*given)
        return ops.sum(value * ops.convert_to_tensor(array("mixture", *value.shape))), value

    tensors = [ops.convert_to_tensor(value) for value in inputs]
    if BACKEND == "jax":
        import jax

        places = tuple(range(len(tensors)))
        (_, value), found = jax.jit(jax.value_and_grad(mixture, places, has_aux=True))(*tensors)
        return value, found
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors)
            mixed, value = mixture(*tensors)
        return value, tape.gradient(mixed, tensors, unconnected_gradients="zero")
    import torch

    for tensor in tensors:
        tensor.requires_grad_(True)
    mixed, value = mixture(*tensors)
    if not mixed.requires_grad:
        return value, [torch.zeros_like(tensor) for tensor in tensors]
    return value, torch.autograd.grad(mixed, tensors, materialize_grads=True)


def loss_numbers():
    """Each loss and its gradient with respect to every array but the labels."""
    for name, function in public_losses().items():
        given = arguments(function)
        moved = [key for key, value in given.items() if isinstance(value, np.ndarray) and key != "labels"]
        fixed = {key: given[key] for key in given if key not in moved}

        def moving(*changed, function=function, moved=moved, fixed=fixed):
            return function(**fixed, **dict(zip(moved, changed, strict=True)))

        value, found = value_and_gradients(moving, [given[key] for key in moved])
        yield f"losses/{name}/value", value
        for key, gradient in zip(moved, found, strict=True):
            yield f"losses/{name}/gradient of {key}", gradient


class Draws:
    """NumPy's numbers in place of Keras's random ones, from the beginning again after each `rewind`."""

    def __init__(self):
        self.rewind()

    def rewind(self):
        self._rng = np.random.default_rng(0)

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return self._tensor(self._rng.uniform(0.0, 1.0, shape), dtype) * (maxval - minval) + minval

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return self._tensor(self._rng.standard_normal(shape), dtype) * stddev + mean

    def randint(self, shape, minval, maxval, dtype="int32", seed=None):
        return ops.convert_to_tensor(self._rng.integers(minval, maxval, shape), dtype=dtype)

    def shuffle(self, x, axis=0, seed=None):
        return ops.take(x, self._rng.permutation(x.shape[axis]), axis=axis)

    def initial_weights(self, shape, dtype=None):
        return self._tensor(self._rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[:-1])), dtype)

    def _tensor(self, values, dtype):
        return ops.convert_to_tensor(values.astype("float32"), dtype=dtype or keras.config.floatx())


@contextmanager
def drawn():
    """Let `keras.random` and the initialisers of kernels give the same numbers on every backend."""
    draws, patched = Draws(), ExitStack()
    for name, _ in inspect.getmembers(keras.random, inspect.isfunction):

        def unknown(*arguments, name=name, **options):
            raise LookupError(f"keras.random.{name} is used: say in Draws what it gives on every backend")

        patched.enter_context(mock.patch.object(keras.random, name, getattr(draws, name, unknown)))
    # what He's, Glorot's and LeCun's have in common
    kernels = keras.initializers.VarianceScaling
    patched.enter_context(
        mock.patch.object(kernels, "__call__", lambda _, shape, dtype=None: draws.initial_weights(shape, dtype))
    )
    with patched:
        yield draws


def everything():
    """A policy in which whatever can happen does, to about half of the images."""
    chosen = {}
    for field in dataclasses.fields(Augmentation):
        if field.name.endswith("probability"):
            chosen[field.name] = 0.5
        elif field.type == "bool":
            chosen[field.name] = True
        elif field.type == "float":
            chosen[field.name] = 0.4
    return augmentation(**chosen)


def images(n, size):
    """Smooth uint8 images, so that a crop is not all noise."""
    coarse = np.random.default_rng(1).uniform(0, 255, (n, 4, 4, 3))
    return np.kron(coarse, np.ones((1, size // 4, size // 4, 1))).astype("uint8")


def augmentation_numbers():
    """One batch under the policy with everything, and with crops of the other kind and a cut blur."""
    resized = everything()
    translated = dataclasses.replace(resized, crop="translated", blur_kernel=9)
    with drawn() as draws:
        for name, policy in {"everything": resized, "translated": translated}.items():
            draws.rewind()
            seed = keras.random.SeedGenerator(0)
            yield f"augmentation/{name}", augment(ops.convert_to_tensor(images(8, 32)), policy, seed)


def move(variables):
    """Biases, scales and batch statistics away from where Keras lets them start, as after some training."""
    for index, variable in enumerate(variables):
        noise = 0.1 * array(f"{index}", *variable.shape)
        match variable.path.split("/")[-1]:
            case "bias" | "beta" | "moving_mean":
                variable.assign(noise)
            case "gamma" | "moving_variance":
                variable.assign(np.exp(noise))


def encoder_numbers():
    """Each encoder's features, and its batch statistics after one call in training."""
    pixels = images(4, 32).astype("float32") / 255.0
    for name in encoders.NAMES:
        with drawn():
            encoder = network(name, 32, **({"width": WIDTH} if name == "conv" else {}))
        move(encoder.weights)
        yield f"encoders/{name}/features", encoder.predict_on_batch(pixels)
        features, statistics = in_training(encoder, pixels)
        yield f"encoders/{name}/features in training", features
        for index, variable in enumerate(encoder.non_trainable_variables):
            yield f"encoders/{name}/statistics {index:03d} {variable.path.split('/')[-1]}", statistics[index]
        if name == "conv":
            # of another size than the network's: resized and scaled inside, which does not depend on the network
            yield f"encoders/{name}/deployed", encoders.deployable(encoder).predict_on_batch(images(4, 40))


def in_training(encoder, pixels):
    """Features and the updated variables that are not trained."""
    call = functools.partial(encoder.stateless_call, training=True)
    if BACKEND == "jax":
        import jax

        # one compilation in place of one for each operation
        call = jax.jit(call)
    state = [[v.value for v in vs] for vs in (encoder.trainable_variables, encoder.non_trainable_variables)]
    return call(*state, pixels)


def tiny_encoder():
    """Convolution, batch normalisation, mean: what the methods must carry, in little time."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((IMAGE, IMAGE, 3)),
            layers.Conv2D(WIDTH, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(WIDTH, 3, strides=2),
            layers.GlobalAveragePooling2D(),
        ]
    )


def small(options):
    """A method's options with no more than 40 units, prototypes or places in a queue, which wraps in two steps."""
    if isinstance(options, Mapping):
        return {name: small(value) for name, value in options.items()}
    return min(options, 40) if isinstance(options, int) and not isinstance(options, bool) else options


# one for each way in which more than two views become a loss
OF_MORE_VIEWS = ("simclr", "supcon", "barlow_twins", "byol", "swav", "dino")


def method_numbers():
    """Each method's variables and metrics after each of some steps of SGD; step 0 is before the first."""
    for name in methods.NAMES:
        yield from _steps(f"methods/{name}", method(name, augmentation()), STEPS)
        if name in OF_MORE_VIEWS:
            # one step takes the same way through more than two views as many do
            yield from _steps(f"methods/{name}/three views", method(name, augmentation(), views=3), 1)


def _steps(place, chosen, steps):
    labels = ARGUMENTS["labels"]
    options = checked(type(chosen), small(to_jsonable_python(chosen)))
    with drawn() as draws:
        model = methods.build(tiny_encoder(), options, 3, seed=0, steps=10)
        model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=jit())
        model.optimizer.build(model.trainable_variables)
        train_step = model.train_step

        def rewound(*arguments):
            # a compiled step draws when it is traced, the others in each call
            draws.rewind()
            return train_step(*arguments)

        model.train_step = rewound
        yield from _state(f"{place}/step 0", model)
        for step in range(1, steps + 1):
            metrics = model.train_on_batch(images(ROWS, IMAGE), labels, return_dict=True)
            yield from _state(f"{place}/step {step}", model)
            for key, value in metrics.items():
                yield f"{place}/step {step}/metric {key}", value


def _state(place, model):
    for index, variable in enumerate(model.weights):
        yield f"{place}/{index:02d} {variable.path.split('/')[-1]}", variable
    # after the first step these are the gradients, times minus the learning rate
    for index, variable in enumerate(model.optimizer.variables[2:]):
        yield f"{place}/{index:02d} velocity", variable


def main(out, devices=1):
    """Write all numbers, or those of the methods on several devices, to the file `out`."""
    groups = [method_numbers()]
    if devices == 1:
        groups = [loss_numbers(), augmentation_numbers(), encoder_numbers(), *groups]
    with on_devices("numbers", devices, ROWS, "ROWS"):
        # copied at once: a variable's array may change in place in the next step
        arrays = {name: np.array(ops.convert_to_numpy(value)) for group in groups for name, value in group}
    np.savez(out, **arrays)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
