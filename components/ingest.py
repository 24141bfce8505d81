"""Ingest: from a source of images to `dataset/`, arrays that every later step can map into memory."""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from components.shared.artifacts import (
    FILES,
    LEFT_OUT_FILES,
    NEAR_COPIES,
    SPLITS,
    UNLABELLED,
    Dataset,
    Manifest,
    save_array,
)
from components.shared.digests import file_digest, joint_digest, value_digest
from components.shared.errors import UserError
from components.shared.params.schema import DataParams, Params
from components.shared.plots.grids import draw_rows
from components.shared.progress import Progress
from components.shared.sources import Source, open_source
from components.shared.sources.overlap import StoredImages, look_alikes, overlap_table, plan, remove_images
from components.shared.sources.pixels import Picture
from components.shared.sources.reading import LeftOut, describe_source, grey_range, remaining, room_for
from components.shared.sources.splitting import LEFT_OUT, check_labels, is_unlabelled
from components.shared.step import command_line, working
from components.shared.tracking.run import under

GRID_ROWS, GRID_COLUMNS = 20, 8
# what files.parquet keeps of each picture
ABOUT = ("path", "width", "height", "mode", "bits", "bytes", "digest", "group")
# in place of a split, of an image that is a near-copy of a test image
REMOVED = "removed"


def ingest(out: Path, params: Params) -> Manifest:
    """Read a source of images, split it, and write it as arrays.

    Args:
        out: output folder `dataset/`: `<split>.images.npy` (uint8, N×H×W×C: grey, RGB or four channels) and
            `<split>.labels.npy` (int64, −1 = unlabelled) for unlabelled, train, validation and test,
            `files.parquet` (a row for each image: split, row, label, path, width, height, mode, bits, bytes,
            digest, group; see `Picture`), `near_copies.parquet` (what is there twice and what became of it; see
            `overlap_table`), `left_out.parquet` (files of the source that are in no split; see `LeftOut`) and
            `manifest.json`. A split that the source does not have and that is not cut from another one is empty.
        params: the section `data`; see `components.shared.sources.splitting` for how labels and splits interact.

    Returns:
        The manifest.

    Raises:
        UserError: the source is missing or not as it should be, or too small for the splits or the label budget;
            images can't be read, and they are too many or `data.on_bad_image` is fail; the disk has no room.
    """
    data = params.data
    with open_source(data) as source:
        labels = {split: source.labels(split) for split in SPLITS}
        check_labels(labels, source.class_names, source.location)
        cuts_validation = not labels["validation"].size
        class_names = source.class_names
        if is_unlabelled(labels):
            _refuse_budget(data)
            class_names = []
            print(f"ingest: {source.location}: no image has a label: only pretraining can use them", flush=True)
        describe_source(source)
        with working("ingest", out, params, {}, data.name) as work:
            left_out = LeftOut(source, data)
            length = data.channels * data.image_size**2
            with room_for(work.out, out, sum(map(len, labels.values())), len(labels["train"]), length):
                files, overlap = _write_images(work.out, source, labels, data, left_out)
                files.to_parquet(work.out / FILES, index=False)
                overlap.to_parquet(work.out / NEAR_COPIES, index=False)
                left_out.table().to_parquet(work.out / LEFT_OUT_FILES, index=False)
                labels = {split: files.loc[files["split"] == split, "label"].to_numpy() for split in SPLITS}
                for split, values in labels.items():
                    save_array(work.out / f"{split}.labels.npy", values)
            tables = (work.out / name for name in (FILES, NEAR_COPIES, LEFT_OUT_FILES))
            digests = {path.name: file_digest(path) for path in sorted([*work.out.glob("*.npy"), *tables])}
            arrays = [(name, digest) for name, digest in digests.items() if name.endswith(".npy")]
            manifest = Manifest(
                **work.common(),
                name=data.name,
                source=source.location,
                source_digest=source.digest(),
                class_names=class_names,
                counts={split: len(values) for split, values in labels.items()},
                class_counts={split: _class_counts(values, class_names) for split, values in labels.items()},
                image_size=data.image_size,
                labels_per_class=data.labels_per_class,
                seed=data.seed,
                cuts_validation=cuts_validation,
                digest=value_digest([joint_digest(arrays), class_names]),
                test_digest=joint_digest(one for one in arrays if one[0].startswith("test.")),
                files=digests,
                left_out=left_out.counts(),
                bad_images=len(left_out.bad),
                grey_bits=source.bits,
                channels=data.channels,
            )
            work.record(manifest)
            dataset = Dataset(work.out)
            work.run.dataset(dataset, "ingest")
            work.run.metrics(under("images", manifest.counts))
            work.run.params({"class_names": ", ".join(manifest.class_names)[:500] or "none"})
            sample_grid(dataset).savefig(work.out / "samples.png")
            work.run.file(work.out / "samples.png")
            work.run.file(work.out / NEAR_COPIES)
            work.run.file(work.out / LEFT_OUT_FILES)
    _tell(overlap, len(files), data.near_copies, out)
    left_out.tell(out / LEFT_OUT_FILES)
    counts = ", ".join(f"{manifest.counts[split]:,} {split}" for split in SPLITS)
    print(f"{out}: {counts} images of {len(manifest.class_names)} classes, {manifest.pixels}", flush=True)
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


def _refuse_budget(data: DataParams) -> None:
    if data.labels_per_class is not None:
        raise UserError(f"data.labels_per_class = {data.labels_per_class}: no image has a label; use null")


def _class_counts(labels: np.ndarray, class_names: Sequence[str]) -> list[int]:
    found: list[int] = np.bincount(labels[labels != UNLABELLED], minlength=len(class_names)).tolist()
    return found


def _tell(overlap: pd.DataFrame, count: int, near_copies: str, out: Path) -> None:
    """Print what was found twice among so many images, with an example of each kind."""
    for what, rows in (
        ("near-copies of test images were removed", overlap[overlap["action"] == "removed"]),
        (
            "near-copies of test images are kept",
            overlap[(overlap["action"] == "kept") & (overlap["twin_split"] == "test")],
        ),
        ("pairs of files show one image under two labels", overlap[overlap["labels_differ"]]),
    ):
        if len(rows):
            one = rows.iloc[0]
            print(
                f"ingest: warning: {len(rows):,} {what}, such as {one['path']} and {one['twin_path']}; "
                f"all are in {out / NEAR_COPIES}",
                flush=True,
            )
    if near_copies != "keep" and (alike := look_alikes(overlap, count)):
        print(
            f"ingest: warning: {alike:,} images are near-copies of each other, directly or through others; if they "
            "only look alike, as photographs of one kind of thing do, set data.near_copies=keep",
            flush=True,
        )


def _write_images(
    folder: Path, source: Source, given: Mapping[str, np.ndarray], data: DataParams, left_out: LeftOut
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read each image once and write it to where it goes.

    Only those of the source's train split may go elsewhere, by what they and others show. They wait in a file of
    their own until all have been seen, so that memory holds few images, and the disk these twice for a while.

    Returns:
        What `files.parquet` tells, sorted by split and row, and what `near_copies.parquet` does.
    """
    shape = (data.image_size, data.image_size, data.channels)
    length = math.prod(shape)
    with ExitStack() as stack:
        # not memory maps: with these the process stays small, and a full disk is an error instead of a crash
        files = [stack.enter_context((folder / f"{split}.images.npy").open("w+b")) for split in SPLITS]
        start = len(_head(0, shape))
        files[SPLITS.index("train")].write(bytes(start))
        queue = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        places = dict(zip(SPLITS, ((file, start) for file in files), strict=True)) | {"train": (queue, 0)}
        about, labels = _read_images(source, given, places, left_out)
        if grey_range([row[ABOUT.index("bits")] for row in about], source):
            about, labels = _read_images(source, given, places, left_out)
        images = {split: StoredImages(*places[split], shape, len(labels[split])) for split in SPLITS}
        goes, pairs = plan(images, labels, pd.DataFrame(about, columns=ABOUT), source.class_names, data)
        for split in ("unlabelled", "validation"):
            remove_images(*places[split], length, goes[split] == LEFT_OUT)
        queue.seek(0)
        for destination in goes["train"]:
            content = queue.read(length)
            if destination != LEFT_OUT:
                files[destination].write(content)
        counts = np.bincount(np.concatenate(list(goes.values())), minlength=len(SPLITS))
        for file, count in zip(files, counts, strict=False):
            # as long as the first one: NumPy leaves room for any number of images
            file.seek(0)
            file.write(_head(int(count), shape))
    own, where = (np.concatenate([of[split] for split in SPLITS]) for of in (labels, goes))
    table = _table(about, own, where)
    kept = table[table["split"] != REMOVED].reset_index(drop=True)
    return kept, overlap_table(pairs, where, table.sort_index(), own, data.near_copies)


def _read_images(
    source: Source, labels: Mapping[str, np.ndarray], places: Mapping[str, tuple[IO[bytes], int]], left_out: LeftOut
) -> tuple[list[tuple[Any, ...]], dict[str, np.ndarray]]:
    """Write the images of each split to a file, from a place in it on; what is there already is replaced.

    Returns:
        What `ABOUT` lists of each image that can be read, and the labels of these.
    """
    about: list[tuple[Any, ...]] = []
    kept = {split: np.ones(len(labels[split]), bool) for split in SPLITS}
    total = sum(map(len, labels.values()))
    left_out.bad.clear()
    with closing(Progress("ingest", total, "image")) as progress:
        for split in SPLITS:
            file, start = places[split]
            file.seek(0)
            file.truncate()
            file.write(bytes(start))
            for index, found in enumerate(source.images(split)):
                if isinstance(found, Picture):
                    file.write(np.ascontiguousarray(found.pixels).data)
                    about.append(tuple(getattr(found, name) for name in ABOUT))
                else:
                    kept[split][index] = False
                    left_out.add(split, int(labels[split][index]), found, progress)
                progress.step()
            file.flush()
    left_out.check(total)
    readable = remaining(labels, kept, source.location)
    if left_out.bad:
        check_labels(readable, source.class_names, source.location)
    return about, readable


def _head(count: int, shape: tuple[int, int, int]) -> bytes:
    """The beginning of a file that holds an array uint8 (count, *shape); the pixels follow."""
    head = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def _table(about: list[tuple[Any, ...]], labels: np.ndarray, goes: np.ndarray) -> pd.DataFrame:
    """What `files.parquet` tells of images in the order of the source."""
    table = pd.DataFrame(about, columns=ABOUT).astype(
        {"width": "int64", "height": "int64", "bytes": "int64", "bits": "Int64", "group": "string"}
    )
    table.insert(0, "split", np.array([*SPLITS, REMOVED])[goes])
    table.insert(1, "row", table.groupby("split").cumcount().astype("int64"))
    table.insert(2, "label", np.where(goes == SPLITS.index("unlabelled"), UNLABELLED, labels))
    table.loc[table["split"] == REMOVED, "row"] = -1
    return table.iloc[np.argsort(goes, kind="stable")]


if __name__ == "__main__":
    command_line("ingest", ingest)
