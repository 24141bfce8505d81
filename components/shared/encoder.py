"""Loading a pretrained encoder for the steps that build on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.errors import UserError


def load_encoder(folder: Path, data: Dataset) -> Any:
    """The encoder that `pretrain` wrote, from uint8 images to features.

    Args:
        folder: written by `pretrain`.
        data: the dataset it must have been trained on.

    Raises:
        UserError: the folder is not finished, the file is damaged, or the encoder belongs to another dataset.
    """
    folder = Path(folder)
    record = read_record(folder, Result)
    if record.dataset_digest != data.manifest.digest:
        raise UserError(
            f"{folder / 'result.json'}: dataset_digest = {record.dataset_digest[:12]}…: trained on another dataset "
            f"than {data.folder} ({data.manifest.digest[:12]}…); run the pretrain step again"
        )
    import keras

    try:
        return keras.saving.load_model(folder / "encoder.keras", compile=False)
    except (OSError, ValueError, KeyError) as error:
        why = str(error).splitlines()[0][:100]
        path = folder / "encoder.keras"
        raise UserError(f"{path}: can't be loaded ({why}); run the pretrain step again") from None
