"""The parameters of a run: their names, types, ranges and defaults, checked in one place.

`params.yaml` (composed from `conf/`) is read by `load_params`. A step is handed only the parameters that it
declares in `components/shared/steps.py`, so that DVC's and Kubeflow's caches can rely on the list; touching another
one is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model, model_validator

from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.evaluation.rules import rules
from components.shared.params.explain import explain
from components.shared.params.methods import AugmentationParams, MethodParams
from components.shared.params.types import Count, Drops, Fraction, Positive, Section
from components.shared.sources import source_names
from components.shared.steps import STEPS, WHERE

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class SplitParams(Section):
    """Fractions of the labelled images to set aside where the source has no such split."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2


class DataParams(Section):
    """Where the images come from and how they are split (`conf/data/`)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    source: Literal[source_names()]  # type: ignore[valid-type]
    path: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, Field(ge=8, le=512)]
    labels_per_class: Count | None = None
    split: SplitParams = SplitParams()
    seed: Annotated[int, Field(ge=0)] = 0


class ValidationParams(Section):
    """What the data check refuses: critical expectations stop the pipeline, warnings are reported.

    `min_images_per_class`: training images of each class (critical). `max_class_imbalance`: largest over smallest
    class of a split; beyond it accuracy speaks mostly of the large classes (warning). `min_pixel_std`: standard
    deviation over the pixels, in grey levels of 0 to 255, that at least one channel must reach; an image below it
    is blank (warning). `max_blank_fraction`: of a split; more blank images mean that reading failed (critical).
    `max_duplicate_fraction`: images of a split that repeat an earlier one, or of validation that another split
    holds too (warning). `max_test_overlap`: test images of which another split holds an exact copy, as a fraction;
    they measure memory (critical). `max_brightness_drift`: distance of the test images' mean brightness from the
    training images', in standard deviations between training images (warning).
    """

    min_images_per_class: Count = 2
    max_class_imbalance: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    min_pixel_std: Annotated[float, Field(ge=0, le=127.5)] = 1.0
    max_blank_fraction: Fraction = 0.05
    max_duplicate_fraction: Fraction = 0.05
    max_test_overlap: Fraction = 0.0
    max_brightness_drift: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.5


class EncoderParams(Section):
    """The network that is pretrained (`conf/encoder/`).

    `width`: number of filters of the `conv` encoder. `stem`: first layers of a residual network: `small` is 3×3
    with stride 1 and no pooling, `large` the published 7×7 with stride 2 and pooling, `auto` small below 64 pixels.
    `normalization` of the images inside the network: `none` leaves [0, 1], `symmetric` maps it to [−1, 1],
    `statistics` subtracts the training images' mean and divides by their standard deviation, channel by channel.
    """

    name: Literal["conv", "resnet18", "resnet34", "resnet50", "resnet50v2"]
    width: Annotated[int, Field(ge=4, le=1024)] = 128
    stem: Literal["auto", "small", "large"] = "auto"
    normalization: Literal["none", "symmetric", "statistics"] = "none"


class RuntimeParams(Section):
    """How long, how large and on what (`conf/runtime/`).

    `batch_size`: images of a step on all devices together. `devices`: over how many of one node's each batch is
    shared out; `auto` takes all graphics cards, or the processor where there is none.
    """

    epochs: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)] = 256
    devices: Literal["auto"] | Count = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    repeats: Annotated[int, Field(ge=1, le=100)] = 3


class MiniBatchParams(Section):
    """The probe's solver `minibatch`: AdamW, its rate tenfold lower at each of `drops` (fractions of it)."""

    epochs: Count = 100
    batch_size: Count = 64
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    drops: Drops = [0.6, 0.8]


class ProbeParams(Section):
    """Linear classifier on frozen features, kNN, and accuracy over the number of labels a class.

    `solver`: `full_batch` goes to the optimum, on standardised features, with the penalty of `l2` that is best on
    validation; `minibatch` trains once on the features as they are.
    """

    label_budgets: list[Count] = [1, 2, 5, 10]
    solver: Literal["full_batch", "minibatch"] = "full_batch"
    l2: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [1e-4, 1e-3, 1e-2, 1e-1]
    steps: Count = 300
    minibatch: MiniBatchParams = MiniBatchParams()
    knn_neighbours: Count = 20
    knn_temperature: Positive = 0.1


class ClassifierHeadParams(Section):
    """Layers between the features and the classes: `hidden` units with ReLU (0 = none), each after `dropout`."""

    hidden: Annotated[int, Field(ge=0)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class SupervisedParams(Section):
    """Training with labels, alike for the baseline and for fine-tuning.

    `schedule`: `steps` makes the learning rate tenfold lower at each of `drops`, fractions of the training.
    `freeze_encoder`: fine-tuning trains the head alone; the baseline trains all weights whatever it says.
    """

    epochs: Count
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["adam", "adamw"] = "adamw"
    learning_rates: Annotated[list[Positive], Field(min_length=1)] = [3e-4, 1e-3, 3e-3]
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["constant", "cosine", "steps"] = "cosine"
    drops: Drops = [0.7, 0.9]
    head: ClassifierHeadParams = ClassifierHeadParams()
    freeze_encoder: bool = False
    augmentation: AugmentationParams = AugmentationParams()

    @model_validator(mode="after")
    def _adam_has_no_decay(self) -> SupervisedParams:
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(f"weight_decay = {self.weight_decay}: adam has none; set it to 0 or take adamw")
        return self


class MonitorParams(Section):
    """What pretraining watches beside its loss.

    `every`: so many epochs, and after the last one; 0 never. kNN on validation images with `knn_neighbours` and
    `knn_temperature`, and whether the embeddings collapse: `min_spread` (standard deviation of unit-length
    embeddings times the root of their width, 1 where they are evenly spread) and `min_rank` (effective number of
    dimensions); below either a warning is printed.
    """

    every: Annotated[int, Field(ge=0)] = 10
    knn_neighbours: Count = 20
    knn_temperature: Positive = 0.1
    min_spread: Annotated[float, Field(ge=0)] = 0.1
    min_rank: Annotated[float, Field(ge=0)] = 2.0


class GateParams(*(rule.Options for rule in rules().values())):  # type: ignore[misc]
    """What a model must prove before it is put up for review (`conf/gate/`): the options of every rule."""


class RegistryParams(Section):
    """Where a blessed model is put up for review, and where the champion is.

    `model_name`: the registered model that versions are put up in. `production_model`: another one, that only
    reviewers may write; approving copies a version into it, and its champion counts. With null the champion is a
    version of `model_name` itself.
    """

    model_name: ModelName
    production_model: ModelName | None = None

    @model_validator(mode="after")
    def _two_models(self) -> RegistryParams:
        if self.production_model == self.model_name:
            raise ValueError(
                f"production_model = {self.production_model}: is model_name too; name another model, or null"
            )
        return self

    @property
    def champion_model(self) -> str:
        """The registered model whose alias `champion` counts."""
        return self.production_model or self.model_name


class Params(Section):
    """All parameters of a run, as in `params.yaml`."""

    data: DataParams
    validation: ValidationParams
    method: MethodParams
    monitor: MonitorParams
    encoder: EncoderParams
    runtime: RuntimeParams
    probe: ProbeParams
    supervised: SupervisedParams
    gate: GateParams
    registry: RegistryParams

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Params:
        warmup, epochs = self.method.optimizer.warmup_epochs, self.runtime.epochs
        # without an epoch nothing is trained: the encoder stays random
        if 0 < epochs < warmup:
            raise ValueError(
                f"method.optimizer.warmup_epochs = {warmup}: must be ≤ runtime.epochs = {epochs}, "
                "or the learning rate is never reached"
            )
        return self


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: `1e-3` is a number too (YAML 1.2), where PyYAML alone sees text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"),
    list("-+.0123456789"),
)


def validate_params(values: Any, where: str = "") -> Params:
    """Check plain values against the model.

    Args:
        values: nested mappings, as in `params.yaml`.
        where: the file they come from, for the message.

    Raises:
        UserError: one line naming the first offending field, its value and the allowed range.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(values, dict):
        raise UserError(f"{prefix}expected a mapping of sections such as data, method and encoder")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{prefix}{explain(error, Params)}") from None


def load_params(path: Path, step: str | None = None) -> Params:
    """Read and check `params.yaml`; with `step`, keep only what that step declares.

    Raises:
        UserError: the file is missing, is not YAML, or holds a value that is not allowed.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; compose it with `python -m pipelines compose`") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: not YAML: {line}{error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None
    params = validate_params(values, str(path))
    return params if step is None else only(params, step)


def only(params: Params, step: str) -> Params:
    """The parameters that `step` declares; reading any other one raises AttributeError."""
    tree: dict[str, Any] = {}
    for key in STEPS[step].parameters:
        section, _, field = key.partition(".")
        value = getattr(params, section)
        if field:
            tree.setdefault(section, {})[field] = getattr(value, field)
        else:
            tree[section] = value
    return _restricted(tree)


def plain(params: Params) -> dict[str, Any]:
    """The parameters as JSON-serialisable values; works on what `only` returns too."""
    result: dict[str, Any] = {}
    for name, section in params.__dict__.items():
        result[name] = {
            field: value.model_dump(mode="json") if isinstance(value, BaseModel) else _jsonable(value)
            for field, value in section.__dict__.items()
        }
    return result


def restore(values: Mapping[str, Any], step: str) -> Params:
    """What `only(params, step)` gave, from the plain values that `plain` made of it.

    Args:
        values: of the parameters that `step` declares, neither more nor less.
        step: the step's name.

    Raises:
        UserError: a value is missing, unknown or not allowed.
    """
    wanted: dict[str, Any] = {}
    for key in STEPS[step].parameters:
        section, _, field = key.partition(".")
        annotation = Params.model_fields[section].rebuild_annotation()
        if field:
            found = wanted.setdefault(section, {})
            found[field] = (annotation.model_fields[field].rebuild_annotation(), ...)
        else:
            wanted[section] = annotation
    parts = {
        name: create_model(name, __base__=Section, **kind) if isinstance(kind, dict) else kind
        for name, kind in wanted.items()
    }
    fields: dict[str, Any] = {name: (kind, ...) for name, kind in parts.items()}
    model = create_model("Restored", __base__=Section, **fields)
    try:
        checked = model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"parameters of {step}: {explain(error, model)}") from None
    return _restricted(
        {
            name: dict(getattr(checked, name)) if isinstance(kind, dict) else getattr(checked, name)
            for name, kind in wanted.items()
        }
    )


def _restricted(tree: Mapping[str, Any]) -> Params:
    """Parameters of which nothing but `tree` can be read: whole sections, or mappings of a section's fields."""
    restricted = Params.model_construct(**tree)
    restricted.__dict__.clear()
    for name, value in tree.items():
        if isinstance(value, dict):
            section = Params.model_fields[name].rebuild_annotation().model_construct(_fields_set=set(value))
            # model_construct fills in defaults; what was not declared must not be readable
            section.__dict__.clear()
            section.__dict__.update(value)
            value = section
        restricted.__dict__[name] = value
    return restricted


def params_digest(params: Params) -> str:
    """SHA-256 of the parameters' values, but for where it computes."""
    values = plain(params)
    for key in WHERE:
        section, _, field = key.partition(".")
        values.get(section, {}).pop(field, None)
    return value_digest(values)


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
