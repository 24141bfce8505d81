"""Data sets of TensorFlow Datasets, made from their authors' archives, checksums on.

The archive is downloaded, or taken from `data.path` if it was put there by hand (no network needed then). It is
prepared once into `.cache/tensorflow_datasets`, or `TFDS_DATA_DIR`, and read from there ever after.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
import tensorflow_datasets
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError
from tensorflow_datasets.core.download.resource import get_dl_fname
from tensorflow_datasets.core.download.util import DownloadError

from components.shared.artifacts import UNLABELLED
from components.shared.errors import UserError, first_line
from components.shared.sources import Source
from components.shared.sources.pixels import Picture

CACHE = ".cache/tensorflow_datasets"
ANSWER_SECONDS = 5.0  # for the first byte from the archive's server; TensorFlow Datasets itself tries for minutes


class TensorFlowDataset(Source):
    """A data set of TensorFlow Datasets that is made from one archive.

    Args:
        name: of the data set, such as "cifar10".
        archives: folder where the archive may have been put by hand.
        image_size: height and width to resize to, in pixels.

    Raises:
        UserError: the archive is neither there nor to be downloaded, or its checksum is wrong.
    """

    def __init__(self, name: str, archives: Path, image_size: int):
        self._size = image_size
        cache = Path(os.environ.get("TFDS_DATA_DIR") or CACHE)
        self._builder = tensorflow_datasets.builder(name, data_dir=str(cache))
        ((url, archive),) = self._builder.url_infos.items()
        self._checksum = str(archive.checksum)
        self.location = url
        # without a folder `is_prepared` prints a warning
        if not Path(self._builder.data_path).exists() or not self._builder.is_prepared():
            _prepare(self._builder, cache, archives)
        self.class_names = list(self._builder.info.features["label"].names)

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,)."""
        if split not in self._builder.info.splits:
            return np.zeros(0, np.int64)
        if split == "unlabelled":
            return np.full(self._builder.info.splits[split].num_examples, UNLABELLED, np.int64)
        rows = self._rows(split, {"image": tensorflow_datasets.decode.SkipDecoding()})
        return np.array([row["label"] for row in rows], np.int64)

    def images(self, split: str) -> Iterator[Picture]:
        """Images of a split, in the order in which they were prepared."""
        if split not in self._builder.info.splits:
            return
        for index, row in enumerate(self._rows(split, None)):
            yield Picture.of(Image.fromarray(row["image"]), self._size, f"{split}/{index}")

    def digest(self) -> str:
        """SHA-256 of the archive."""
        return self._checksum

    def _rows(self, split: str, decoders: Any) -> Any:
        # one file after the other, so that labels and images come in the same order in every pass
        in_order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        rows = self._builder.as_dataset(split, shuffle_files=False, decoders=decoders, read_config=in_order)
        return tensorflow_datasets.as_numpy(rows)


def _prepare(builder: Any, cache: Path, archives: Path) -> None:
    ((url, archive),) = builder.url_infos.items()
    by_hand = archives / archive.filename
    origin = str(by_hand) if by_hand.exists() else url
    unpacked = cache / "unpacked" / builder.name
    config = tensorflow_datasets.download.DownloadConfig(
        manual_dir=str(archives),
        extract_dir=str(unpacked),
        force_checksums_validation=True,
        # their bucket holds data sets prepared by others
        try_download_gcs=False,
    )
    if not sys.stderr.isatty():
        tensorflow_datasets.disable_progress_bar()
    try:
        if origin == url and not any((cache / "downloads").rglob(get_dl_fname(url, archive.checksum))):
            # ask and hang up, the way TensorFlow Datasets will ask (proxy settings and all)
            with requests.get(url, stream=True, timeout=ANSWER_SECONDS) as answer:
                answer.raise_for_status()
        print(f"{builder.name}: preparing {origin} into {cache}/ (once)", flush=True)
        builder.download_and_prepare(download_dir=str(cache / "downloads"), download_config=config)
    except NonMatchingChecksumError:
        raise UserError(
            f"{origin}: is not the original archive (its SHA-256 should be {archive.checksum}, "
            f"its size {int(archive.size)} bytes); remove it, and download it again from {url}"
        ) from None
    except (requests.RequestException, DownloadError) as error:
        raise UserError(
            f"data.source = {builder.name}: can't get the archive ({_reason(error, urlsplit(url).netloc)}); "
            f"download {url} elsewhere and put {by_hand.name} into {archives}/, then run this again"
        ) from None
    except (OSError, ExtractError) as error:
        raise UserError(f"{cache}: can't prepare {builder.name} from {origin}: {error}") from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _reason(error: Exception, host: str) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer from {host} within {ANSWER_SECONDS:.0f} s"
    return f"no connection to {host}" if isinstance(error, requests.ConnectionError) else first_line(error, 160)
