"""Your own images: a folder, .zip or .tar of JPEG, PNG and WebP files, sorted into folders by class.

Either `train/<class>/…`, `test/<class>/…`, optional `validation/<class>/…` and `unlabelled/…`, or simply
`<class>/…`. The labels follow the sorted names of the classes. Files that are no images are left alone; images of
other kinds (GIF, TIFF, …) are refused rather than silently lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from components.shared.artifacts import UNLABELLED
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.sources import SPLIT_NAMES, Source
from components.shared.sources.files import Files
from components.shared.sources.pixels import ImageFile, Picture, decode_all

PUBLISHED = False
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
OTHER_IMAGES = frozenset({".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"})

_LAST_NUMBER = re.compile(r"[\W_]*\d+\W*$")
# `data.group` → from the names of an image and of its class ("" without one) to that of its group, None without one
GROUPS: dict[str, Callable[[str, str], str | None]] = {
    # obj7__12.png → obj7
    "prefix": lambda name, label: _LAST_NUMBER.sub("", PurePosixPath(name).stem) or None,
    # the folder it lies in, if that is not its class's
    "folder": lambda name, label: (
        None
        if (folder := PurePosixPath(name).parent.name) == label or folder.lower() in SPLIT_NAMES
        else folder or None
    ),
}

# split → class → names of its images; unlabelled images have the class ""
Layout = dict[str, dict[str, list[str]]]


def open_source(data: DataParams) -> Source:
    """List the images below `data.path` and check how they are laid out; see `Folder`."""
    return Folder(Path(data.path), data.image_size, data.group)


class Folder(Source):
    """Images sorted into folders by class.

    Args:
        path: directory or archive.
        image_size: height and width to resize to, in pixels.
        group: by what images are grouped, a key of `GROUPS`; None: not at all.

    Raises:
        UserError: one line that names the file or folder which does not fit.
    """

    def __init__(self, path: Path, image_size: int, group: str | None = None):
        if group is not None and group not in GROUPS:
            raise UserError(f"data.group = {group}: of a folder it must be {' or '.join(GROUPS)}, or null")
        self._group = GROUPS[group] if group else lambda name, label: None
        self.location = str(path)
        self._size = image_size
        self._files = Files(path)
        layout = _read_layout(self._files)
        self.class_names = sorted(layout.get("train", ()))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self._items = {
            split: [(name, numbers.get(label, UNLABELLED)) for label in sorted(classes) for name in classes[label]]
            for split, classes in layout.items()
        }

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,)."""
        return np.array([label for _, label in self._items.get(split, [])], np.int64)

    def images(self, split: str) -> Iterator[Picture]:
        """Images of a split, class by class and sorted by name."""
        items = ((name, ["", *self.class_names][label + 1]) for name, label in self._items.get(split, []))
        files = (
            ImageFile(self._files.read(name), self._files.where(name), name, self._group(name, label))
            for name, label in items
        )
        return decode_all(files, self._size)

    def digest(self) -> str:
        """SHA-256 of the archive, or of all files and their names."""
        return self._files.digest()

    def close(self) -> None:
        """Close the archive."""
        self._files.close()


def _read_layout(files: Files) -> Layout:
    images = [name for name in files.names if _is_image(files, name)]
    if not images:
        raise UserError(
            f"{files.path}: holds no images (.jpg, .jpeg, .png or .webp); put them into <class>/ folders"
        )
    skip = _common_top(files)
    by_split = _has_split_folders(files, skip)
    layout: Layout = {}
    for folder in sorted(files.folders):
        split, rest = _split_and_rest(folder, skip, by_split)
        if split:
            classes = layout.setdefault(split, {})
            if split != "unlabelled" and len(rest) == 1:
                classes[rest[0]] = []
    for image in images:
        split, rest = _split_and_rest(image, skip, by_split)
        labelled = split != "unlabelled"
        if not split or len(rest) < 1 + labelled:
            raise UserError(f"{files.where(image)}: is in no class folder; move it into one, or remove it")
        layout[split].setdefault(rest[0] if labelled else "", []).append(image)
    _check_classes(files, layout)
    return layout


def _is_image(files: Files, name: str) -> bool:
    ending = PurePosixPath(name).suffix.lower()
    if ending in OTHER_IMAGES:
        raise UserError(f"{files.where(name)}: {ending} images are not read; convert it to JPEG, PNG or WebP")
    return ending in ENDINGS


def _common_top(files: Files) -> int:
    """How many leading folders (none or one) merely hold everything, as archives often have."""
    tops = {PurePosixPath(name).parts[0] for name in files.folders}
    if len(tops) != 1 or tops.pop().lower() in SPLIT_NAMES:
        return 0
    return 1 if any("/" in name for name in files.folders) else 0


def _split_and_rest(name: str, skip: int, by_split: bool) -> tuple[str, tuple[str, ...]]:
    """The split that an entry belongs to ("" if it lies above all splits), and the path inside it."""
    parts = PurePosixPath(name).parts[skip:]
    if not by_split:
        return "train", parts
    return (SPLIT_NAMES.get(parts[0].lower(), ""), parts[1:]) if parts else ("", ())


def _has_split_folders(files: Files, skip: int) -> bool:
    """Whether the top folders are splits (all of them) or classes (all of them)."""
    depth = skip + 1
    tops = sorted(name for name in files.folders if len(PurePosixPath(name).parts) == depth)
    splits = {name: SPLIT_NAMES.get(PurePosixPath(name).name.lower()) for name in tops}
    named = [name for name in tops if splits[name]]
    if not named:
        return False
    for name in tops:
        if not splits[name]:
            raise UserError(
                f"{files.where(name)}: stands beside {named[0]}/, which names a split; put the classes into train/ "
                f"and test/, or rename {named[0]}/ if it is a class"
            )
        twin = next(other for other in named if splits[other] == splits[name])
        if twin != name:
            raise UserError(f"{files.where(name)}: names the same split as {twin}/; keep one of the two")
    # of unlabelled images alone an encoder can be trained
    if "train" not in splits.values() and set(splits.values()) != {"unlabelled"}:
        raise UserError(
            f"{files.path}: has {', '.join(named)} but no train/; put labelled images into train/<class>/"
        )
    return True


def _check_classes(files: Files, layout: Layout) -> None:
    for split, classes in layout.items():
        if not classes:
            raise UserError(f"{files.path}: the folder of the split {split} holds no images; add some or remove it")
        for label, images in sorted(classes.items()):
            if split != "unlabelled" and label not in layout["train"]:
                where = files.where(images[0]) if images else f"{files.path}: {split}/{label}"
                raise UserError(f"{where}: class {label!r} has no training images; add some, or remove it")
            if not images:
                raise UserError(f"{files.path}: class {label!r} of {split} holds no images; add some or remove it")
