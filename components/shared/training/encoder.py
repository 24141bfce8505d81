"""Loading a pretrained encoder for the steps that build on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.errors import UserError, first_line
from components.shared.params.schema import EncoderParams


def load_encoder(folder: Path, data: Dataset, network: EncoderParams | None = None) -> Any:
    """The encoder that `pretrain` wrote, from uint8 images to features.

    Args:
        folder: written by `pretrain`.
        data: the dataset it must have been trained on.
        network: the network it must be; None takes any.

    Raises:
        UserError: the folder is not finished, the file is damaged, or the encoder belongs to another dataset or is
            another network.
    """
    folder = Path(folder)
    record = read_record(folder, Result)
    if record.dataset_digest != data.manifest.digest:
        raise UserError(
            f"{folder / 'result.json'}: dataset_digest = {record.dataset_digest[:12]}…: trained on another dataset "
            f"than {data.folder} ({data.manifest.digest[:12]}…); run the pretrain step again"
        )
    pretrained = record.params.get("encoder")
    if network is not None and pretrained != network.model_dump(mode="json"):
        raise UserError(
            f"{folder / 'result.json'}: params.encoder = {pretrained}: another network than encoder = "
            f"{network.model_dump(mode='json')}; run the pretrain step again"
        )
    import keras

    path = folder / "encoder.keras"
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # the archive, its JSON and its HDF5 each have their own exceptions
        raise UserError(
            f"{path}: can't be loaded ({first_line(error, 100)}); run the pretrain step again"
        ) from None
