"""The folders that steps hand to each other: their records, and how they are written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import io
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from components.shared.cost import Cost
from components.shared.digests import file_digest, files_digest
from components.shared.errors import UserError

SPLITS = ("unlabelled", "train", "validation", "test")
UNLABELLED = -1
# what helps on a cluster, where a new volume belongs to root
TO_WRITE = "let its volume belong to group 0 with mode 0770, or set the pod's fsGroup"
FILES = "files.parquet"
NEAR_COPIES = "near_copies.parquet"
LEFT_OUT_FILES = "left_out.parquet"
# of `probe`: labels that may be wrong
LABEL_SUSPECTS = "label_suspects.csv"
# of `probe`: features of some test images
FEATURES = "features.npz"
CHAMPION_RECORD = "champion.json"
# a finished folder holds one of them
RECORDS = ("manifest.json", "result.json", CHAMPION_RECORD)


class Record(BaseModel):
    """What every output folder says about itself.

    `inputs` maps the name of each input folder to its digest; `seconds` is the wall-clock time of the step;
    `mlflow_run_id` is the run that tracked it. `cost` is what it took, of a gathered folder that of its replicates
    too; older records lack it.
    """

    # NaN is written as text, which JSON has a place for, and read back as NaN
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    schema_version: Literal[1] = 1
    step: str
    params: dict[str, Any]
    params_digest: str
    inputs: dict[str, str]
    seconds: float
    mlflow_run_id: str
    cost: Cost | None = None


class Manifest(Record):
    """`dataset/manifest.json`: where the images came from and what was made of them.

    `name` is that of the data option; it names the MLflow experiment. `source` says where the images were read.
    `counts` maps each split to its number of images, `class_counts` each split to the number of images of each
    class (in the order of `class_names`); `cuts_validation` tells that the validation split was cut from the
    labelled images; `digest` covers all arrays and the class names, `test_digest` the test split alone; `files`
    maps each array's and each table's file to its SHA-256. `left_out` counts by kind the files of the
    source that are not in the dataset, which `left_out.parquet` lists; `bad_images` says how many of them are
    images that can't be read, and `grey_bits` what range the values of 16-bit grey images were taken to have.
    `channels` are those of each image: 1 grey, 3 RGB, 4 as stored.
    """

    name: str
    source: str
    source_digest: str
    class_names: list[str]
    counts: dict[str, int]
    class_counts: dict[str, list[int]]
    image_size: int
    labels_per_class: int | None
    seed: int
    cuts_validation: bool
    digest: str
    test_digest: str
    files: dict[str, str]
    left_out: dict[str, int] = {}
    bad_images: int = 0
    grey_bits: int | None = None
    channels: Literal[1, 3, 4] = 3

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of each image."""
        return self.image_size, self.image_size, self.channels

    @property
    def pixels(self) -> str:
        """Size and, where they are not RGB, channels of each image, for people."""
        kind = {1: ", grey", 3: "", 4: ", 4 channels"}[self.channels]
        return f"{self.image_size}×{self.image_size} pixels{kind}"


class Result(Record):
    """`result.json` of every other step. `dataset_digest` names the dataset that the step worked on."""

    dataset_digest: str
    metrics: dict[str, float]
    details: dict[str, Any] = {}


RecordType = TypeVar("RecordType", bound=Record)
ModelType = TypeVar("ModelType", bound=BaseModel)


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there; what is missing in between can be made."""
    path = path.absolute()
    return next(found for found in (path, *path.parents) if found.exists())


def is_writable(folder: Path) -> bool:
    """Whether this user may write into a folder, there or still to be made."""
    nearest = nearest_existing(folder)
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK, effective_ids=True)


def require_writable(folder: Path, use: str) -> None:
    """Refuse a folder that can't be written before work is done that would be lost.

    Args:
        folder: that will be written, there or still to be made.
        use: what for, for the message.

    Raises:
        UserError: this user may not write there, or the file system is read-only.
    """
    if is_writable(folder):
        return
    nearest = nearest_existing(folder)
    user = f"user {os.geteuid()}, group {os.getegid()}"
    raise UserError(f"{folder}: {use} can't be written there ({user} may not write {nearest}); {TO_WRITE}")


@contextmanager
def output_folder(out: Path, records: Sequence[str] = RECORDS) -> Iterator[Path]:
    """A folder to write into that takes the place of `out` only when the block ends without an error.

    Half-written folders of killed runs lie beside `out` under a hidden name and are removed here.

    Args:
        out: the folder's final place.
        records: names of files by which an older folder there is known as one of ours.

    Raises:
        UserError: `out` can't be written, is a folder of something else, or is being written by another process, or
            the disk is full.
    """
    out = Path(out)
    partial = out.parent / f".{out.name}.partial"
    old = out.parent / f".{out.name}.old"
    try:
        refuse_foreign(out, records)
        if partial.exists():
            # what a killed run left; a living run holds a lock on it
            with locked(partial) as dead:
                if not dead:
                    raise UserError(f"{out}: another process is writing it; wait until it ends, or end it")
                shutil.rmtree(partial)
        if old.exists():
            shutil.rmtree(old)
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; check the path, or {TO_WRITE}") from None
    with locked(partial):
        try:
            yield partial
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"{out}: {error.strerror}; nothing is left; make room and run again") from None
            raise
        if out.exists():
            out.rename(old)
        partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def refuse_foreign(out: Path, records: Sequence[str] = RECORDS) -> None:
    """Replacing a folder deletes it, so it must be one of ours: with a record, or empty.

    Raises:
        UserError: it is something else.
    """
    if not out.exists() or any((out / name).exists() for name in records):
        return
    if not out.is_dir() or any(out.iterdir()):
        raise UserError(f"{out}: exists and was not written by a step; remove it or choose another folder")


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Lock a file or folder until the block or the process ends; False if another process has it locked, or had.

    Args:
        path: that is there.
        wait: until another process lets go of it.
    """
    # a network file system locks only what is opened for writing
    writing = os.access(path, os.W_OK, effective_ids=True) and not path.is_dir()
    descriptor = os.open(path, os.O_RDWR if writing else os.O_RDONLY)
    alone = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        alone = False
    except OSError:
        pass  # a file system without locks
    try:
        # who had it locked may have removed it, and somebody else made it anew
        yield alone and path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
    finally:
        os.close(descriptor)


def write_record(folder: Path, record: Record) -> None:
    """Write `manifest.json` (a `Manifest`) or `result.json` into `folder`.

    Beside a manifest goes `digest.txt`: its digest alone. The manifest tells of its run (time, MLflow id) and so is
    never the same twice; whoever asks whether the images changed, as dvc.yaml does, asks this file.
    """
    name = "manifest.json" if isinstance(record, Manifest) else "result.json"
    (folder / name).write_text(record.model_dump_json(indent=2) + "\n")
    if isinstance(record, Manifest):
        (folder / "digest.txt").write_text(record.digest + "\n")


def read_record(folder: Path, kind: type[RecordType]) -> RecordType:
    """Read the record of a finished output folder.

    Raises:
        UserError: the folder was not written by its step, or its record does not fit this version.
    """
    return read_json(Path(folder) / ("manifest.json" if issubclass(kind, Manifest) else "result.json"), kind)


def read_json(path: Path, kind: type[ModelType]) -> ModelType:
    """Read a JSON file of a step's output folder and check it.

    Raises:
        UserError: it is missing, can't be read, or does not fit this version; the line names the field.
    """
    step = f"the step that writes {path.parent.name}/"
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: missing; run {step} first (`dvc repro`)") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise UserError(f"{path}: {field}: {first['msg'].lower()}; run {step} again") from None


class Dataset:
    """Read access to a `dataset/` folder; the images stay on disk (memory-mapped).

    Args:
        folder: written by `components.ingest`.

    Raises:
        UserError: the folder is not a finished dataset, or an array does not fit the manifest.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.manifest = read_record(self.folder, Manifest)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.manifest.class_names)

    def require_labels(self) -> None:
        """Refuse what only labels make possible.

        Raises:
            UserError: no image of the dataset has a label.
        """
        if not self.classes:
            raise UserError(
                f"{self.folder}: no image has a label, so no classifier can be trained or measured; "
                "add labelled images, or use the encoder alone (`contrastive embed`)"
            )

    def images(self, split: str) -> np.ndarray:
        """Images of a split: uint8, shape (N, H, W, C), memory-mapped and read-only."""
        images = self._load(f"{split}.images.npy", mmap_mode="r")
        shape = self.manifest.image_shape
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise UserError(
                f"{self.folder / split}.images.npy: {images.dtype} {images.shape}; "
                f"expected uint8 (N, {', '.join(map(str, shape))}); run the ingest step again"
            )
        return images

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,), −1 = unlabelled."""
        return self._load(f"{split}.labels.npy")

    def files(self, split: str) -> pd.DataFrame:
        """What each image of a split is, in row order: label, path, width, height, digest (of its pixels), group.

        Raises:
            UserError: the list is missing or damaged.
        """
        path = self.folder / FILES
        try:
            found = pd.read_parquet(path)
            return found[found["split"] == split].sort_values("row").reset_index(drop=True)
        except (OSError, ValueError, KeyError) as error:
            why = str(error).splitlines()[0][:120]
            raise UserError(f"{path}: can't be read ({why}); run the ingest step again") from None

    def check_digests(self) -> None:
        """Check that every array, and every table, is what was ingested.

        Raises:
            UserError: one is missing, was replaced since, or the manifest does not tell its digest.
        """
        arrays = [f"{split}.{kind}.npy" for split in SPLITS for kind in ("images", "labels")]
        for name in dict.fromkeys((*arrays, FILES, *self.manifest.files)):
            path = self.folder / name
            if not path.is_file() or file_digest(path) != self.manifest.files.get(name):
                raise UserError(f"{path}: is not what manifest.json says was ingested; run the ingest step again")

    def _load(self, name: str, mmap_mode: Any = None) -> np.ndarray:
        path = self.folder / name
        array = open_array(path, mmap_mode)
        expected = self.manifest.counts[name.split(".")[0]]
        if len(array) != expected:
            raise UserError(f"{path}: {len(array)} rows where manifest.json says {expected}; run ingest again")
        return array


def open_array(path: Path, mmap_mode: Any = "r") -> np.ndarray:
    """One array of a dataset, by default memory-mapped, whatever its type and shape.

    Raises:
        UserError: the file is missing or is not a NumPy array.
    """
    try:
        return np.load(path, mmap_mode=mmap_mode)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run the ingest step again (`dvc repro -f ingest`)") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a NumPy array: {error}; run the ingest step again") from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one array in C order, openable with `np.load(mmap_mode="r")`."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(array), allow_pickle=False)
    # by Python's file, since NumPy's own does not notice that a disk is full when little is written
    path.write_bytes(content.getbuffer())


def save_predictions(path: Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write class probabilities and true labels of several splits.

    Args:
        path: the `.npz` file.
        splits: name of split → (probabilities float32 (seeds, N, classes), labels int64 (N,)). The file holds
            `<split>_probabilities` and `<split>_labels`; `probabilities` and `labels` repeat the test split.
    """
    arrays: dict[str, Any] = {}
    for split, (probabilities, labels) in splits.items():
        arrays[f"{split}_probabilities"] = probabilities.astype(np.float32)
        arrays[f"{split}_labels"] = labels.astype(np.int64)
    shortcuts = {kind: arrays[f"test_{kind}"] for kind in ("probabilities", "labels")}
    np.savez_compressed(path, **arrays, **shortcuts)


def input_digest(folder: Path) -> str:
    """Digest of a finished input folder: a dataset's own, else that of its record and models; or of one file."""
    if Path(folder).is_file():
        return file_digest(Path(folder))
    if (Path(folder) / "manifest.json").exists():
        return read_record(folder, Manifest).digest
    names = ("encoder.keras", "classifier.keras", "predictions.npz", "blessing.json", CHAMPION_RECORD)
    return files_digest(path for name in names if (path := Path(folder) / name).exists())


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader, or a killed writer, leaves no half of it; of several writers one is last.

    What killed writers left of it is removed.

    Raises:
        OSError: it can't be written.
    """
    remove_half_written(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.partial")
    try:
        with temporary.open("xb") as file, locked(temporary):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except FileNotFoundError:
        # where a file system has no locks, another writer may have taken it for one that a killed writer left
        if not path.parent.is_dir():
            raise
        replace_file(path, data)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_half_written(path: Path) -> None:
    """Remove what killed writers of a file left beside it; what a living one writes stays."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(FileNotFoundError), locked(left) as dead:
            if dead:
                left.unlink()
