"""Options as in `conf/`, some of them changed."""

from __future__ import annotations

import json
from functools import cache

from pydantic import TypeAdapter

from components.shared.params.composing import compose_settings
from models import encoders, methods
from models.augmentation import Augmentation
from models.classifier import Recipe
from models.encoders.shared.normalization import PixelStatistics
from models.methods.shared.heads import HeadOptions
from models.optimizers import OptimizerOptions
from models.probes import MiniBatchOptions

# what changes nothing in an image but the place that it is cropped from, and its side
COLORS_OFF = dict.fromkeys(("brightness", "contrast", "saturation", "hue", "grey_probability"), 0.0)
# so that colours are sometimes left as they are, and heads are plain, whatever the defaults of the sample are
SOMETIMES = {"jitter_probability": 0.8, "grey_probability": 0.2}
PLAIN = {"width": 128, "batch_norm": False}
STILL = {"crop_area": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": False}


@cache
def _read(name):
    group = name.split("/")[0]
    # from which an encoder's file tells the size of its views
    values = compose_settings(name, ["+data.image_size=32"] if group == "encoder" else [])
    if name == "config":
        return values
    return values["method"][group] if group in ("augmentation", "optimizer") else values[group]


def checked(kind, values):
    """Plain values as options of a kind."""
    return TypeAdapter(kind).validate_json(json.dumps(values))


def augmentation(**changes):
    """Crops and mirrors, and nothing else but what is asked for."""
    return checked(Augmentation, {**_read("augmentation/any_hue"), **SOMETIMES, **COLORS_OFF, **changes})


def encoder(option, **changes):
    """An encoder's options."""
    values = {**_read(f"encoder/{option}"), **changes}
    return checked(encoders.options_type(values["name"]), values)


def network(option, image_size, statistics=None, channels=3, **changes):
    """An encoder with fresh weights; of images in the middle of their range where no statistics are given."""
    middle = PixelStatistics((0.5,) * channels, (0.06,) * channels)
    return encoders.build(encoder(option, **changes), image_size, statistics or middle, channels)


def method(option, policy=None, **changes):
    """A method's options; `changes` replace whole groups or single values."""
    groups = {"optimizer": _read("optimizer/adam"), "augmentation": {**_read("augmentation/any_hue"), **SOMETIMES}}
    values = {**_read(f"method/{option}"), **groups, **changes}
    if policy is not None:
        values["augmentation"] = TypeAdapter(Augmentation).dump_python(policy)
    return checked(methods.options_type(values["name"]), values)


def head(**changes):
    """A plain projection head's options."""
    return checked(HeadOptions, {**_read("method/simclr")["projection"], **PLAIN, **changes})


def optimizer(name, learning_rate, **changes):
    """An optimiser's options, by default with a cosine and without warm-up."""
    values = {**_read("optimizer/adam"), "warmup_epochs": 0, **changes}
    return checked(OptimizerOptions, {**values, "name": name, "learning_rate": learning_rate})


def minibatch(**changes):
    """Options of the probe's solver in mini-batches."""
    return checked(MiniBatchOptions, {**_read("config")["probe"]["minibatch"], **changes})


def recipe(policy, **changes):
    """One training with labels, at the first point of the search where nothing else is said."""
    values = _read("config")["supervised"]
    space = values["search"]
    first = {"learning_rate": space["learning_rates"][0], "weight_decay": space["weight_decays"][0],
             "epochs": space["epochs"][0]}  # fmt: skip
    same = {name: values[name] for name in ("batch_size", "optimizer", "schedule", "milestones")}
    chosen = {"augmentation": TypeAdapter(Augmentation).dump_python(policy), **first, **same, **changes}
    return checked(Recipe, chosen)
