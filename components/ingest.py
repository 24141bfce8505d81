"""Ingest: from a source of images to `dataset/`, arrays that every later step can map into memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from components.shared.artifacts import FILES, SPLITS, UNLABELLED, Dataset, Manifest, save_array
from components.shared.digests import file_digest, files_digest, value_digest
from components.shared.errors import UserError
from components.shared.params.schema import DataParams, Params
from components.shared.plots.grids import draw_rows
from components.shared.progress import Progress
from components.shared.sources import Source, open_source
from components.shared.sources.pixels import Picture
from components.shared.sources.splitting import check_labels, needs_plan, plan_train
from components.shared.step import command_line, working

GRID_ROWS, GRID_COLUMNS = 20, 8


def ingest(out: Path, params: Params) -> Manifest:
    """Read a source of images, split it, and write it as arrays.

    Args:
        out: output folder `dataset/`: `<split>.images.npy` (uint8, N×H×W×3, RGB) and `<split>.labels.npy` (int64,
            −1 = unlabelled) for unlabelled, train, validation and test, `files.parquet` (split, row, label, path,
            width, height, digest and group of each image), and `manifest.json`. A split that the
            source does not have and that is not cut from another one is empty.
        params: the section `data`; see `components.shared.sources.splitting` for how labels and splits interact.

    Returns:
        The manifest.

    Raises:
        UserError: the source is missing or not as it should be, or too small for the splits or the label budget.
    """
    data = params.data
    with open_source(data) as source:
        labels = {split: source.labels(split) for split in SPLITS}
        check_labels(labels, source.class_names, source.location)
        with working("ingest", out, params, {}, data.name) as work:
            written = _Written(work.out, data.image_size)
            plan = _write_images(written, source, labels, data)
            classes = _write_labels(work.out, labels, plan, len(source.class_names))
            written.write_files(labels)
            manifest = Manifest(
                **work.common(),
                name=data.name,
                source=source.location,
                source_digest=source.digest(),
                class_names=source.class_names,
                counts=_counts(plan),
                class_counts=classes,
                image_size=data.image_size,
                labels_per_class=data.labels_per_class,
                seed=data.seed,
                cuts_validation=not labels["validation"].size,
                digest=value_digest([files_digest(work.out.glob("*.npy")), source.class_names]),
                test_digest=files_digest(work.out.glob("test.*.npy")),
                files={
                    path.name: file_digest(path) for path in sorted([*work.out.glob("*.npy"), work.out / FILES])
                },
            )
            work.record(manifest)
            dataset = Dataset(work.out)
            work.run.dataset(dataset, "ingest")
            work.run.metrics({f"{split}_images": count for split, count in manifest.counts.items()})
            work.run.params({"class_names": ", ".join(manifest.class_names)[:500]})
            sample_grid(dataset).savefig(work.out / "samples.png")
            work.run.file(work.out / "samples.png")
    counts, size = ", ".join(f"{manifest.counts[split]:,} {split}" for split in SPLITS), data.image_size
    print(f"{out}: {counts} images of {len(manifest.class_names)} classes, {size}×{size} pixels", flush=True)
    return manifest


def sample_grid(dataset: Dataset) -> Figure:
    """A picture of the first images of each class (at most 20 classes) and of some unlabelled ones."""
    labels = dataset.labels("train")
    rows = [
        (name, list(dataset.images("train")[np.flatnonzero(labels == label)[:GRID_COLUMNS]]))
        for label, name in enumerate(dataset.manifest.class_names[:GRID_ROWS])
    ]
    if len(unlabelled := dataset.images("unlabelled")):
        spread = np.linspace(0, len(unlabelled) - 1, min(GRID_COLUMNS, len(unlabelled))).astype(int)
        rows.append(("unlabelled", list(unlabelled[spread])))
    return draw_rows(rows)


def _counts(plan: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Number of images that go to each split."""
    destinations = np.concatenate(list(plan.values()))
    return {split: int(np.sum(destinations == index)) for index, split in enumerate(SPLITS)}


class _Written:
    """The images of each split, written one by one, and a line about each.

    Args:
        folder: to write into.
        size: height and width of the images.
    """

    def __init__(self, folder: Path, size: int):
        self.folder, self.size = folder, size
        self.rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        self._open: dict[str, BinaryIO] = {}

    def __enter__(self) -> _Written:
        # not a memory map: with these the process stays small, and a full disk is an error instead of a crash
        for split in SPLITS:
            file = (self.folder / f"{split}.images.npy").open("wb")
            file.write(bytes(len(self._head(0))))
            self._open[split] = file
        return self

    def __exit__(self, *_: object) -> None:
        for split, file in self._open.items():
            with file:
                # NumPy leaves room in the head for any number of rows
                file.seek(0)
                file.write(self._head(len(self.rows[split])))

    def add(self, split: str, pixels: bytes, about: Mapping[str, Any]) -> None:
        """Append one image to a split."""
        self._open[split].write(pixels)
        self.rows[split].append(dict(about))

    def write_files(self, labels: Mapping[str, np.ndarray]) -> None:
        """Write `files.parquet`; `labels` are the source's, of its splits."""
        rows = [
            {"split": split, "row": row, "label": _label(split, about, labels), **_told(about)}
            for split, each in self.rows.items()
            for row, about in enumerate(each)
        ]
        table = pd.DataFrame(rows, columns=["split", "row", "label", "path", "width", "height", "digest", "group"])
        types = {"row": "int64", "label": "int64", "width": "int64", "height": "int64", "group": "string"}
        table.astype(types).to_parquet(self.folder / FILES, index=False)

    def _head(self, count: int) -> bytes:
        head = io.BytesIO()
        shape = (count, self.size, self.size, 3)
        np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return head.getvalue()


def _label(split: str, about: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> int:
    return UNLABELLED if split == "unlabelled" else int(labels[about["origin"]][about["index"]])


def _told(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("path", "width", "height", "digest", "group")}


def _write_images(
    written: _Written, source: Source, labels: Mapping[str, np.ndarray], data: DataParams
) -> dict[str, np.ndarray]:
    """Write all images where they go; returns for each split of the source where its images went.

    Those of train that may go elsewhere wait in a file of their own until all of them have been seen.
    """
    plan = {split: np.full(len(labels[split]), SPLITS.index(split)) for split in SPLITS}
    total = sum(len(of_split) for of_split in labels.values())
    try:
        with closing(Progress("ingest", total, "image")) as progress, written:
            for origin in SPLITS:
                waiting = origin == "train" and needs_plan(labels, data)
                with tempfile.TemporaryFile(dir=written.folder) as queue:
                    seen = []
                    for index, picture in enumerate(source.images(origin)):
                        about = {**_about(picture), "origin": origin, "index": index}
                        if waiting:
                            queue.write(picture.pixels.tobytes())
                            seen.append(about)
                        else:
                            own = labels[origin][index] == UNLABELLED
                            plan[origin][index] = SPLITS.index("unlabelled") if own else SPLITS.index(origin)
                            written.add(SPLITS[plan[origin][index]], picture.pixels.tobytes(), about)
                        progress.step()
                    if waiting:
                        keys = [about["group"] or about["digest"] for about in seen]
                        plan[origin] = plan_train(labels, keys, source.class_names, data)
                        queue.seek(0)
                        for about, destination in zip(seen, plan[origin], strict=True):
                            written.add(SPLITS[destination], queue.read(3 * data.image_size**2), about)
    except OSError as error:
        raise UserError(
            f"{written.folder.parent}: can't write the images: {error.strerror}; make room and run again"
        ) from None
    return plan


def _about(picture: Picture) -> dict[str, Any]:
    return {name: getattr(picture, name) for name in ("path", "width", "height", "digest", "group")}


def _write_labels(
    folder: Path, labels: Mapping[str, np.ndarray], plan: Mapping[str, np.ndarray], classes: int
) -> dict[str, list[int]]:
    """Write the labels in the order of the images; returns the number of images of each class of each split."""
    counts = {}
    for index, split in enumerate(SPLITS):
        here = np.concatenate([labels[origin][plan[origin] == index] for origin in SPLITS])
        if split == "unlabelled":
            here = np.full(len(here), UNLABELLED, np.int64)
        save_array(folder / f"{split}.labels.npy", here)
        counts[split] = np.bincount(here[here != UNLABELLED], minlength=classes).tolist()
    return counts


if __name__ == "__main__":
    command_line("ingest", ingest)
