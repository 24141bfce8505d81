"""Any image classification set of TensorFlow Datasets, by its name there: `data=tfds data.name=cifar100`.

It is made from its authors' archives, checksums on. These are downloaded, or taken from `data.path` if they were
put there by hand (no network needed then). It is prepared once into `.cache/tensorflow_datasets`, or
`TFDS_DATA_DIR`, and read from there ever after; what lies there prepared already needs no archive.

Its splits are taken by name: train, test, validation and unlabelled; others are left out, and said so. One whose
labels are all −1, as a contest keeps them back, is left out too, or is unlabelled if it is called so.
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
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.extractor import ExtractError
from tensorflow_datasets.core.download.resource import get_dl_fname
from tensorflow_datasets.core.download.util import DownloadError
from tensorflow_datasets.core.registered import DatasetNotFoundError

from components.shared.artifacts import UNLABELLED
from components.shared.digests import files_digest, value_digest
from components.shared.errors import UserError, first_line
from components.shared.params.explain import did_you_mean
from components.shared.params.schema import DataParams
from components.shared.sources import SPLIT_NAMES, Source
from components.shared.sources.decoding import ImageFile, decode_all
from components.shared.sources.pixels import BadImageError, Picture

PUBLISHED = True
CACHE = ".cache/tensorflow_datasets"
ANSWER_SECONDS = 5.0  # for the first byte from an archive's server; TensorFlow Datasets itself tries for minutes


def open_source(data: DataParams) -> TensorFlowDataset:
    """Prepare the set `data.name`, in its variant `data.config`; `data.path` may hold its archives."""
    name = data.name if data.config is None else f"{data.name}/{data.config}"
    return TensorFlowDataset(name, Path(data.path), data.image_size)


class TensorFlowDataset(Source):
    """A data set of TensorFlow Datasets.

    Args:
        name: of the data set, such as "cifar10", or of one of its variants, "eurosat/rgb".
        archives: folder where the archives may have been put by hand.
        image_size: height and width to resize to, in pixels.

    Raises:
        UserError: there is no such set, its archives are neither there nor to be downloaded, a checksum is wrong,
            or it is no set of images with one class each.
    """

    def __init__(self, name: str, archives: Path, image_size: int):
        self._size, self._folder = image_size, archives
        self._cache = cache = Path(os.environ.get("TFDS_DATA_DIR") or CACHE)
        self._builder = _builder(name, cache)
        self._image, self._label = _features(self._builder)
        urls = _archives(self._builder)
        named = f"TensorFlow Datasets: {self._builder.info.full_name}"
        self.location = next(iter(urls)) if len(urls) == 1 else named
        # without a folder `is_prepared` prints a warning
        if not Path(self._builder.data_path).exists() or not self._builder.is_prepared():
            _prepare(self._builder, urls, cache, archives)
        self.class_names = list(self._builder.info.features[self._label].names)
        self._labels = self._read_labels()

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,)."""
        return self._labels[split][1] if split in self._labels else np.zeros(0, np.int64)

    def images(self, split: str) -> Iterator[Picture | BadImageError]:
        """Images of a split, in the order in which they were prepared."""
        return decode_all(self._files(split), self._size, channels=self.channels)

    def digest(self) -> str:
        """SHA-256 of the archive; over those of several; or over the prepared files of a set that has none."""
        checksums = {url: str(archive.checksum) for url, archive in _archives(self._builder).items()}
        if len(checksums) == 1:
            return next(iter(checksums.values()))
        return value_digest(checksums) if checksums else files_digest(Path(self._builder.data_path).iterdir())

    def _read_labels(self) -> dict[str, tuple[str, np.ndarray]]:
        """Split → how the set calls it, and its labels."""
        info, found = self._builder.info, {}
        for own, split in ((own, SPLIT_NAMES.get(own.lower())) for own in info.splits):
            if split is None or split in found:
                print(f"{info.full_name}: its split {own} is left out", flush=True)
                continue
            if split == "unlabelled":
                labels = np.full(info.splits[own].num_examples, UNLABELLED, np.int64)
            else:
                labels = np.array([row[self._label] for row in self._rows(own)], np.int64)
            if split in ("validation", "test") and (labels == UNLABELLED).all():
                print(f"{info.full_name}: its split {own} has no labels, and is left out", flush=True)
                continue
            found[split] = own, labels
        if not {"train", "unlabelled"} & set(found):
            raise UserError(
                f"data.name = {info.full_name}: its splits are {', '.join(info.splits)}; one called train is needed"
            )
        return found

    def _archive(self) -> Path:
        """The archive of a set that is made from one, wherever it lies."""
        ((url, info),) = _archives(self._builder).items()
        by_hand = self._folder / info.filename
        downloaded = (self._cache / "downloads").rglob(get_dl_fname(url, info.checksum))
        found = by_hand if by_hand.exists() else next(downloaded, None)
        if found is None:
            raise UserError(f"data.path = {self._folder}: put {by_hand.name} there, from {url}")
        return found

    def _files(self, split: str) -> Iterator[ImageFile]:
        if split in self._labels:
            for index, row in enumerate(self._rows(self._labels[split][0])):
                path = f"{split}/{index}"
                yield ImageFile.of(row[self._image], f"{self._builder.info.full_name}: {path}", path)

    def _rows(self, own: str) -> Any:
        # one file after the other, so that labels and images come in the same order in every pass
        in_order = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        wanted = tensorflow_datasets.decode.PartialDecoding(
            {self._image: True, self._label: True},
            decoders={self._image: tensorflow_datasets.decode.SkipDecoding()},
        )
        rows = self._builder.as_dataset(own, shuffle_files=False, decoders=wanted, read_config=in_order)
        return tensorflow_datasets.as_numpy(rows)


def _builder(name: str, cache: Path) -> Any:
    try:
        return tensorflow_datasets.builder(name, data_dir=str(cache))
    except DatasetNotFoundError:
        meant = did_you_mean(name, tensorflow_datasets.list_builders(with_community_datasets=False))
        raise UserError(f"data.name = {name}: TensorFlow Datasets has no such set{meant}") from None
    except (ValueError, ImportError) as error:
        raise UserError(f"data.name = {name}: {first_line(error)}") from None


def _features(builder: Any) -> tuple[str, str]:
    """Names of the image and of the class in a row."""
    features = builder.info.features
    kinds = (tensorflow_datasets.features.Image, tensorflow_datasets.features.ClassLabel)
    # a video, or an image with labels, derives from nothing of these
    found = [[name for name, feature in features.items() if isinstance(feature, kind)] for kind in kinds]
    pair = builder.info.supervised_keys
    if pair is not None and all(name in names for name, names in zip(pair, found, strict=False)):
        return pair[0], pair[1]
    if [len(names) for names in found] == [1, 1]:
        return found[0][0], found[1][0]
    raise UserError(
        f"data.name = {builder.info.full_name}: is no set of images with one class each, but of "
        f"{', '.join(features)}; write it into folders or Parquet, and use data=folder or data=parquet"
    )


def _archives(builder: Any) -> dict[str, Any]:
    """Address → size, checksum and file name of what the set is made from; none for one that is made by hand."""
    # a set that is read from its prepared files alone has no such attribute
    return dict(getattr(builder, "url_infos", None) or {})


def _prepare(builder: Any, urls: dict[str, Any], cache: Path, archives: Path) -> None:
    missing = {url: archive for url, archive in urls.items() if not (archives / archive.filename).exists()}
    (url, archive) = next(iter((missing or urls).items()), ("", None))
    origin = url if missing or archive is None else str(archives / archive.filename)
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
        for address, info in missing.items():
            if not any((cache / "downloads").rglob(get_dl_fname(address, info.checksum))):
                # ask and hang up, the way TensorFlow Datasets will ask (proxy settings and all)
                with requests.get(address, stream=True, timeout=ANSWER_SECONDS) as answer:
                    answer.raise_for_status()
        print(f"{builder.name}: preparing {origin or 'it'} into {cache}/ (once)", flush=True)
        builder.download_and_prepare(download_dir=str(cache / "downloads"), download_config=config)
    except NonMatchingChecksumError as error:
        if archive is None or len(urls) != 1:
            raise UserError(f"{archives}: {first_line(error, 300)}; remove that archive and get it again") from None
        raise UserError(
            f"{origin}: is not the original archive (its SHA-256 should be {archive.checksum}, "
            f"its size {int(archive.size)} bytes); remove it, and download it again from {url}"
        ) from None
    except (requests.RequestException, DownloadError) as error:
        names = ", ".join(Path(info.filename).name for info in missing.values())
        raise UserError(
            f"data.source = {builder.name}: can't get the archive ({_reason(error, urlsplit(url).netloc)}); "
            f"download {' and '.join(missing)} elsewhere and put {names} into {archives}/, then run this again"
        ) from None
    except (AssertionError, OSError, ImportError, ValueError, ExtractError) as error:
        # what its authors hand out to people only has to be fetched by one
        by_hand = " ".join((builder.MANUAL_DOWNLOAD_INSTRUCTIONS or "").split())[:300]
        if by_hand:
            raise UserError(f"data.name = {builder.name}: put it into {archives}/ by hand: {by_hand}") from None
        raise UserError(
            f"{cache}: can't prepare {builder.name} from {origin or 'its source'}: {first_line(error, 300)}"
        ) from None
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _reason(error: Exception, host: str) -> str:
    if isinstance(error, requests.Timeout):
        return f"no answer from {host} within {ANSWER_SECONDS:.0f} s"
    return f"no connection to {host}" if isinstance(error, requests.ConnectionError) else first_line(error, 160)
