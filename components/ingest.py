"""Ingest: from a source of images to `dataset/`, arrays that every later step can map into memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure

from components.shared.artifacts import SPLITS, UNLABELLED, Dataset, Manifest, save_array
from components.shared.digests import files_digest, value_digest
from components.shared.errors import UserError
from components.shared.params.schema import Params
from components.shared.plots.grids import draw_rows
from components.shared.progress import Progress
from components.shared.sources import Source, open_source
from components.shared.sources.splitting import check_labels, plan_splits
from components.shared.step import command_line, working

GRID_ROWS, GRID_COLUMNS = 20, 8


def ingest(out: Path, params: Params) -> Manifest:
    """Read a source of images, split it, and write it as arrays.

    Args:
        out: output folder `dataset/`: `<split>.images.npy` (uint8, N×H×W×3, RGB) and `<split>.labels.npy` (int64,
            −1 = unlabelled) for unlabelled, train, validation and test, and `manifest.json`. A split that the
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
        plan = plan_splits(labels, source.class_names, data)
        with working("ingest", out, params, {}, data.name) as work:
            _write_images(work.out, source, plan, data.image_size)
            classes = _write_labels(work.out, labels, plan, len(source.class_names))
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


def _write_images(folder: Path, source: Source, plan: Mapping[str, np.ndarray], size: int) -> None:
    """Write the images one by one to where the plan says, in the order in which the source gives them."""
    counts = _counts(plan)
    try:
        with closing(Progress("ingest", sum(counts.values()), "image")) as progress, ExitStack() as stack:
            # not a memory map: with these the process stays small, and a full disk is an error instead of a crash
            files = [
                stack.enter_context(_image_file(folder / f"{split}.images.npy", counts[split], size))
                for split in SPLITS
            ]
            for split in SPLITS:
                for image, destination in zip(source.images(split), plan[split], strict=True):
                    files[destination].write(image.tobytes())
                    progress.step()
    except OSError as error:
        raise UserError(
            f"{folder.parent}: can't write the images: {error.strerror}; make room and run again"
        ) from None


def _image_file(path: Path, count: int, size: int) -> BinaryIO:
    """A new file that holds the head of an array uint8 (count, size, size, 3); the pixels are to follow."""
    file = path.open("wb")
    shape = (count, size, size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file


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
