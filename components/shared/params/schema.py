"""The parameters of a run: their sections, and how they are read, checked and handed to the steps.

`params.yaml` (composed from `conf/`, where the defaults stand) is read by `load_params`. A step is handed only the
parameters that it declares in `components/shared/steps.py`, so that DVC's and Kubeflow's caches can rely on the
list; touching another one is an error. The sections about learning have their types in `models`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import to_jsonable_python

from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.evaluation import looks
from components.shared.evaluation.rules import rules
from components.shared.params.explain import did_you_mean, explain, value_in_words
from components.shared.params.types import Count, Fraction, Positive, Section, Seed
from components.shared.sources import source_names
from components.shared.steps import STEPS, WHERE
from components.shared.training.backend import start_backend

if TYPE_CHECKING:
    from models.classifier import SupervisedOptions
    from models.encoders import EncoderOptions
    from models.methods import MethodOptions
    from models.probes import ProbeOptions

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class SplitParams(Section):
    """Fractions of the labelled images to set aside where the source has no such split."""

    validation: Annotated[float, Field(gt=0, lt=1)]
    test: Annotated[float, Field(gt=0, lt=1)]


class DataParams(Section):
    """Where the images come from and how they are split (`conf/data/`).

    `near_copies`: images outside test that show what a test image shows are dropped, make the step fail or stay;
    they are listed in any case. `group`: what images are views of; those of one group are never divided between
    splits: for a folder `prefix` (the file's name up to its last number) or `folder` (the folders below the class),
    for Parquet the name of a column; null: none, or Parquet's column `group` if there is one.

    `class_folder`: which of several folders above an image names its class, the `first` or the `last`; null: there
    must be one only. `on_bad_image`: images that can't be read make the step `fail`, once all are told, or it
    `skip`s and lists them, up to `max_bad_fraction` of all. `grey_bits`: what range the values of 16-bit grey
    images have; null: the largest that any of them needs. `channels`: 1 reads images as grey, 3 as RGB, 4 takes the
    four channels that each file must have, such as RGB and near infrared. `memory`: what decoding may take, in MiB;
    a quarter of it limits the size of a file, the rest the pixels of an image.

    `config`: which variant of a set of TensorFlow Datasets that has several; null is its default one. `fold`: which
    of STL-10's ten predefined folds of 1,000 images keeps its labels; null keeps all 5,000. `digest`: SHA-256 that
    the material must have, as `source_digest` of `dataset/manifest.json` tells it; null takes any.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    source: Literal[source_names()]  # type: ignore[valid-type]
    path: Annotated[str, Field(min_length=1)]
    image_size: Annotated[int, Field(ge=8, le=512)]
    labels_per_class: Count | None
    split: SplitParams
    near_copies: Literal["drop", "fail", "keep"] = "drop"
    group: Annotated[str, Field(min_length=1)] | None = None
    class_folder: Literal["first", "last"] | None = None
    on_bad_image: Literal["fail", "skip"] = "fail"
    max_bad_fraction: Fraction = 0.1
    grey_bits: Literal[8, 10, 12, 14, 16] | None = None
    channels: Literal[1, 3, 4] = 3
    memory: Annotated[int, Field(ge=64)] = 512
    seed: Annotated[int, Field(ge=0)]
    config: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    fold: Annotated[int, Field(ge=0, le=9)] | None = None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _has_groups(self) -> DataParams:
        if self.group is not None and self.source not in ("folder", "parquet"):
            raise ValueError(f"group = {self.group}: images of {self.source} have no groups; set null")
        return self

    @model_validator(mode="after")
    def _has_channels(self) -> DataParams:
        if self.channels != 3 and self.source in ("cifar10", "stl10"):
            raise ValueError(
                f"channels = {self.channels}: {self.source} is published in RGB; set 3, or write its images into "
                "folders or Parquet and use data=folder or data=parquet"
            )
        return self


class ExpectationParams(Section):
    """One thing that must hold for a column of a table (`conf/validation/`); see `Expectation` for the meaning.

    What else it holds is handed to Great Expectations as it is, but for a bound in words, which is looked up.
    """

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(pattern=r"^expect_[a-z_]+$")]
    table: Literal["images", "splits", "classes", "near_copies", "drift"]
    severity: Literal["critical", "warning"]
    meaning: Annotated[str, Field(min_length=1)]
    column: str = ""
    splits: tuple[Literal["unlabelled", "train", "validation", "test"], ...] = ()
    words: str = ""
    images: str = ""

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class ValidationParams(Section):
    """What the data check refuses: critical expectations stop the pipeline, warnings are reported.

    `min_images_per_class`: training images of each class (critical). `max_class_imbalance`: largest over smallest
    class of a split; beyond it accuracy speaks mostly of the large classes (warning). `min_pixel_std`: standard
    deviation over the pixels, in grey levels of 0 to 255, that at least one channel must reach; an image below it
    is blank (warning). `max_blank_fraction`: of a split; more blank images mean that reading failed (critical).
    `max_duplicate_fraction`: images of a split that repeat an earlier one, or of validation that another split
    holds too (warning). `max_test_overlap`: test images of which another split holds an exact copy, as a fraction;
    they measure memory (critical). `max_brightness_drift`: distance of the test images' mean brightness from the
    training images', in standard deviations between training images (warning). `expectations`: what is checked,
    with these bounds or others; one that is null is not.
    """

    min_images_per_class: Count
    max_class_imbalance: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    min_pixel_std: Annotated[float, Field(ge=0, le=127.5)]
    max_blank_fraction: Fraction
    max_duplicate_fraction: Fraction
    max_test_overlap: Fraction
    max_brightness_drift: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    expectations: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ExpectationParams | None]


class RuntimeParams(Section):
    """How long, how large and on what (`conf/runtime/`).

    `batch_size`: images of a step on all devices together. `sub_batch`: how many of a pretraining step's images go
    through the encoder at a time, for less memory; null: all at once. `devices`: over how many of one node's each
    batch is shared out; `auto` takes all graphics cards, or the processor where there is none. `threads`: processor
    cores of a training; a step's trainings then run side by side, as many as there are cores for. null: all, and
    one after another. `precision`: a result tells what `auto` was (`training.devices.precision_here`).
    `replicates`: seeds, each of them a whole training: pretraining, probe and fine-tuning, and a baseline beside
    it.
    """

    epochs: Annotated[int, Field(ge=0)]
    batch_size: Annotated[int, Field(ge=2)]
    sub_batch: Count | None
    devices: Literal["auto"] | Count
    threads: Count | None
    precision: Literal["auto", "float32", "bfloat16"]
    replicates: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _each_once(self) -> RuntimeParams:
        if len(set(self.replicates)) < len(self.replicates):
            raise ValueError(
                f"replicates = {list(self.replicates)}: the same seed is the same training; list others"
            )
        return self


class MonitorParams(Section):
    """What pretraining watches beside its loss.

    `every`: so many epochs, and after the last one; 0 never. kNN on validation images with `knn_neighbours` and
    `knn_temperature`, how often their views find each other, and whether the embeddings collapse: `min_spread`
    (standard deviation of unit-length embeddings times the root of their width, 1 where they are evenly spread) and
    `min_rank` (effective number of dimensions); below either a warning is printed.

    `stop_by`: a figure on validation images; the training ends where it has not improved for `stop_after` epochs,
    and the last epoch's weights count. null: it goes on to `runtime.epochs`.
    """

    every: Annotated[int, Field(ge=0)]
    knn_neighbours: Count
    knn_temperature: Positive
    min_spread: Annotated[float, Field(ge=0)]
    min_rank: Annotated[float, Field(ge=0)]
    stop_by: (
        Literal[
            "validation_probe_accuracy",
            "validation_probe_loss",
            "knn_accuracy",
            "validation_view_top1",
            "validation_view_top5",
            "validation_view_rank",
        ]
        | None
    )
    stop_after: Count

    @model_validator(mode="after")
    def _measures_what_stops(self) -> MonitorParams:
        each_epoch = self.stop_by is None or self.stop_by.startswith("validation_probe_")
        if not self.every and not each_epoch:
            raise ValueError(f"stop_by = {self.stop_by}: is never measured with every = 0; set every to 1 or more")
        return self


class GateParams(looks.Options, *(rule.Options for rule in rules().values())):  # type: ignore[misc]
    """What a model must prove before it is put up for review (`conf/gate/`): its options and each rule's."""


class RegisteredModels(Section):
    """Where a blessed model is put up for review, and where the champion is.

    `model_name`: the registered model that versions are put up in. `production_model`: another one, that only
    reviewers may write; approving copies a version into it, and its champion counts. With null the champion is a
    version of `model_name` itself.
    """

    model_name: ModelName
    production_model: ModelName | None

    @model_validator(mode="after")
    def _two_models(self) -> RegisteredModels:
        if self.production_model == self.model_name:
            raise ValueError(
                f"production_model = {self.production_model}: is model_name too; name another model, or null"
            )
        return self

    @property
    def champion_model(self) -> str:
        """The registered model whose alias `champion` counts."""
        return self.production_model or self.model_name


class RegistryParams(RegisteredModels):
    """The registered models, and which of their versions may be used.

    `require_signature`: only those that are signed by the owner of the key that `CONTRASTIVE_PUBLIC_KEY` names.
    """

    require_signature: bool


class Params:
    """The parameters of a run, or those that a step was handed: sections, whose values are fixed.

    Reading a section, or one of its values, that was not handed over raises AttributeError.
    """

    data: DataParams
    validation: ValidationParams
    method: MethodOptions
    monitor: MonitorParams
    encoder: EncoderOptions
    runtime: RuntimeParams
    probe: ProbeOptions
    supervised: SupervisedOptions
    gate: GateParams
    registry: RegistryParams

    def __init__(self, sections: Mapping[str, Any]):
        self.__dict__.update(sections)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name}: parameters are fixed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and self.__dict__ == other.__dict__


SECTIONS = tuple(Params.__annotations__)
# the others are about learning: their types are in `models`, and need Keras
_TYPES: dict[str, type[Section]] = {
    "data": DataParams,
    "validation": ValidationParams,
    "monitor": MonitorParams,
    "runtime": RuntimeParams,
    "gate": GateParams,
    "registry": RegistryParams,
}


class _Loader(yaml.SafeLoader):
    """YAML as DVC reads it: `1e-3` is a number too (YAML 1.2), where PyYAML alone sees text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"),
    list("-+.0123456789"),
)


def validate_params(values: Any, where: str = "", sections: Iterable[str] = SECTIONS) -> Params:
    """Check plain values.

    Args:
        values: nested mappings, as in `params.yaml`.
        where: the file they come from, for the message.
        sections: the ones to check; of the others the names alone.

    Raises:
        UserError: one line naming the first offending field, its value and what is allowed.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(values, dict):
        raise UserError(f"{prefix}expected a mapping of sections such as data, method and encoder")
    _start_if_needed(sections)
    try:
        for name in values:
            if name not in SECTIONS:
                raise UserError(f"{name}: no such parameter{did_you_mean(name, SECTIONS)}; see conf/ for the names")
        for name in SECTIONS:
            if name not in values:
                raise UserError(f"{name}: missing; see conf/ for its values")
        found = Params({name: _checked(name, _type(name, values[name]), values[name]) for name in sections})
        _check_warm_up(found)
        _check_projection(found)
        _check_view_size(found)
        if hasattr(found, "data"):
            check_colors(found, found.data.channels)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None
    return found


def load_params(path: Path, step: str | None = None) -> Params:
    """Read and check `params.yaml`; with `step`, only what that step declares.

    Raises:
        UserError: the file is missing, is not YAML, or holds a value that is not allowed.
    """
    values = read_params(path)
    return validate_params(values, str(path)) if step is None else step_params(step, values, str(path))


def step_params(step: str, values: Any, where: str = "") -> Params:
    """Check of plain values what `step` declares, and hand out that alone; raises as `validate_params`."""
    return select(validate_params(values, where, _declared(step)), step)


def read_params(path: Path) -> Any:
    """The values of `params.yaml`, unchecked: to check some takes Keras, which takes seconds.

    Raises:
        UserError: the file is missing, or is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; compose it with `contrastive compose`") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{path}: not YAML: {line}{error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from None


def select(params: Params, step: str) -> Params:
    """The parameters that `step` declares; reading any other one raises AttributeError."""
    found = {}
    for name, fields in _declared(step).items():
        section = getattr(params, name)
        found[name] = _part(name, *fields)(**{f: getattr(section, f) for f in fields}) if fields else section
    return Params(found)


def to_plain(params: Params) -> dict[str, Any]:
    """The parameters as JSON-serialisable values; works on what `select` returns too."""
    values: dict[str, Any] = to_jsonable_python(params.__dict__)
    return values


def from_plain(values: Mapping[str, Any], step: str) -> Params:
    """What `select(params, step)` gave, from the plain values that `to_plain` made of it.

    Args:
        values: of the parameters that `step` declares, neither more nor less.
        step: the step's name.

    Raises:
        UserError: a value is missing, unknown or not allowed.
    """
    declared = _declared(step)
    if values.keys() != declared.keys():
        raise UserError(f"parameters of {step}: {', '.join(values)}: must be {', '.join(declared)}")
    _start_if_needed(declared)
    try:
        return Params(
            {
                name: _checked(name, _part(name, *fields) if fields else _type(name, values[name]), values[name])
                for name, fields in declared.items()
            }
        )
    except UserError as error:
        raise UserError(f"parameters of {step}: {error}") from None


def params_digest(params: Params) -> str:
    """SHA-256 of the parameters' values, but for where it computes."""
    values = to_plain(params)
    for key in WHERE:
        section, _, field = key.partition(".")
        values.get(section, {}).pop(field, None)
    return value_digest(values)


def _declared(step: str) -> dict[str, list[str]]:
    """Section → the names of its values that a step is handed; none: all of them."""
    found: dict[str, list[str]] = {}
    for key in STEPS[step].parameters:
        section, _, field = key.partition(".")
        found.setdefault(section, []).extend([field] if field else [])
    return found


def _start_if_needed(sections: Iterable[str]) -> None:
    if any(name not in _TYPES for name in sections):
        start_backend()


def _type(name: str, values: Any) -> Any:
    """The type of a section; of those that have one for each choice, the chosen one's."""
    if name in _TYPES:
        return _TYPES[name]
    # imported here: Keras takes seconds and memory, and steps that learn nothing do without
    from models import classifier, encoders, methods, probes

    if name in ("probe", "supervised"):
        return probes.ProbeOptions if name == "probe" else classifier.SupervisedOptions
    there = methods if name == "method" else encoders
    chosen = values.get("name") if isinstance(values, dict) else None
    if chosen not in there.NAMES:
        allowed = f"must be one of {', '.join(there.NAMES)}{did_you_mean(chosen, there.NAMES)}"
        raise UserError(f"{name}.name = {value_in_words(chosen)}: {allowed}")
    return there.options_type(chosen)


@cache
def _part(section: str, *fields: str) -> type[Section]:
    """A section with some of its values only."""
    whole = _TYPES[section].model_fields
    chosen: dict[str, Any] = {field: (whole[field].rebuild_annotation(), ...) for field in fields}
    # with what can be asked of those alone
    bases = (kind for kind in _TYPES[section].__mro__ if issubclass(kind, Section))
    base = next(kind for kind in bases if kind.model_fields.keys() <= chosen.keys())
    return create_model(section, __base__=base, **chosen)


_adapter = cache(TypeAdapter)


def _checked(name: str, kind: Any, values: Any) -> Any:
    try:
        # as JSON: strict about types, and yet a list becomes a tuple and a mapping a group of options
        return _adapter(kind).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise UserError(explain(error, values, [name])) from None


def check_colors(params: Params, channels: int) -> None:
    """Check that no augmentation changes the colours of images that have none.

    Args:
        params: those of a run, or of a step.
        channels: of the images.

    Raises:
        UserError: one line that names the first such change.
    """
    for name, policy in _policies(params).items():
        try:
            policy.require_channels(channels)
        except ValueError as error:
            raise UserError(
                f"{name}.{error} (data.channels = {channels}); set it to 0, or, without a preset, all such changes "
                "with augmentation=any_channels"
            ) from None


def _policies(params: Params) -> dict[str, Any]:
    """The augmentations that a run, or a step, may use, by name."""
    policies: dict[str, Any] = {}
    if hasattr(params, "method"):
        policies["method.augmentation"] = params.method.augmentation
    if hasattr(params, "supervised"):
        policies["supervised.weak"] = params.supervised.weak
        if params.supervised.published is not None:
            policies["supervised.published.augmentation"] = params.supervised.published.augmentation
    if hasattr(params, "probe") and params.probe.augmented_copies:
        policies["probe.augmentation"] = params.probe.augmentation
    return policies


def _check_warm_up(params: Params) -> None:
    if not (hasattr(params, "method") and hasattr(params, "runtime")):
        return
    warmup, epochs = params.method.optimizer.warmup_epochs, params.runtime.epochs
    # without an epoch nothing is trained: the encoder stays random
    if 0 < epochs < warmup:
        raise UserError(
            f"method.optimizer.warmup_epochs = {warmup}: must be ≤ runtime.epochs = {epochs}, "
            "or the learning rate is never reached"
        )


def _check_projection(params: Params) -> None:
    if not (hasattr(params, "method") and hasattr(params, "supervised")):
        return
    asked, layers = params.supervised.projection_layers, params.method.projection.layers
    if asked >= layers and asked:
        raise UserError(
            f"supervised.projection_layers = {asked}: must be ≤ {layers - 1}, the projection head's hidden layers "
            f"(method.projection.layers = {layers})"
        )


def _check_view_size(params: Params) -> None:
    if not hasattr(params, "encoder") or params.encoder.any_size:
        return
    for name, policy in _policies(params).items():
        if policy.size is not None:
            raise UserError(
                f"{name}.size = {policy.size}: encoder={params.encoder.name} takes images of one size only; set "
                "null, or choose another encoder"
            )
