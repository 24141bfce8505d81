"""Pretraining methods, found by the name of their module: heads, a loss, and what they keep between steps.

A new method is one module here (its `Options`, its loss, its class), one file in `conf/method/` and one test.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

import keras

from models.methods.shared.base import Method, MethodOptions, Setup

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg))


def options_type(name: str) -> type[MethodOptions]:
    """The options of a method.

    Raises:
        ValueError: the name is unknown.
    """
    found: type[MethodOptions] = _module(name).Options
    return found


def build(
    encoder: keras.Model, options: MethodOptions, classes: int, seed: int, steps: int = 1, sub_batches: int = 1
) -> Method:
    """Build a method around an encoder.

    Args:
        encoder: as from `models.encoders.build`; it is trained in place.
        options: the method's `Options`, which name it.
        classes: number of classes of the online probe.
        seed: decides the augmentation.
        steps: of the whole training; momentum schedules span them.
        sub_batches: parts of a batch that go through the encoder one after another; they divide its images.

    Raises:
        ValueError: the name is unknown.
    """
    return _class(options.name)(Setup(encoder, options, classes, seed, steps, sub_batches))


def uses_labels(options: MethodOptions) -> bool:
    """Whether the method's encoder learns from the labels of the training images."""
    return _class(options.name).uses_labels


def _class(name: str) -> type[Method]:
    module = _module(name)
    own = (value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__)
    found: type[Method] = next(value for value in own if isinstance(value, type) and issubclass(value, Method))
    return found


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        raise ValueError(f"name = {name}: must be one of {', '.join(NAMES)}")
    return import_module(f"{__name__}.{name}")
