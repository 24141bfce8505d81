"""What trains with labels, compiled once: trials of the search and replicates of a process share it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from components.shared.artifacts import Dataset
from components.shared.params.schema import Params
from components.shared.training.devices import devices_here, precision_here
from components.shared.training.inputs import network
from models.augmentation import Augmentation
from models.classifier import ClassifierHead, SupervisedTrainer
from models.encoders import EncoderOptions
from models.methods.shared.heads import HeadOptions


def supervised_trainer(
    data: Dataset,
    params: Params,
    projection: HeadOptions | None,
    augmentation: Augmentation,
    optimizer: str,
    pretrained: bool,
) -> SupervisedTrainer:
    """The trainer of one side, made on the devices of the block `on_devices` around.

    It is the same object as long as nothing changes that is compiled in.

    Args:
        data: the dataset.
        params: reads encoder, supervised and runtime.
        projection: the head that pretraining had, of which fine-tuning keeps `supervised.projection_layers`.
        augmentation: of the images.
        optimizer: its name.
        pretrained: whether it starts from pretrained weights, which alone may be frozen.

    Raises:
        ValueError: the encoder does not suit the images.
    """
    options = params.supervised
    return _compiled(
        data.folder, data.manifest.digest, params.encoder, projection, options.projection_layers, augmentation,
        optimizer, options.head, precision_here(params.runtime.precision), options.freeze_encoder and pretrained,
        devices_here(),
    )  # fmt: skip


# the search's two augmentations, each with a frozen and a free encoder; a replicate's chosen and published training
@lru_cache(maxsize=4)
def _compiled(
    dataset: Path,
    digest: str,
    encoder: EncoderOptions,
    projection: HeadOptions | None,
    layers: int,
    augmentation: Augmentation,
    optimizer: str,
    head: ClassifierHead,
    precision: str,
    frozen: bool,
    devices: int,
) -> SupervisedTrainer:
    data = Dataset(dataset)
    build = network(encoder, data, projection, layers)
    return SupervisedTrainer(augmentation, optimizer, head, build, data.classes, precision, frozen)
