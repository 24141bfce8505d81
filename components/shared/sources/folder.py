"""Your own images: a folder, .zip or .tar of image files (see `kinds.READ`), sorted into folders by class.

Either `train/<class>/…`, `test/<class>/…`, optional `validation/<class>/…` and `unlabelled/…`, or simply
`<class>/…`. The labels follow the sorted names of the classes. What is an image is told by a file's content where
its ending is not one of the usual ones; files that are none are left alone and listed. Folders inside a class's are
refused, since nobody can know which level names the class, unless `data.class_folder` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from components.shared.artifacts import UNLABELLED
from components.shared.errors import UserError
from components.shared.params.schema import DataParams
from components.shared.sources import SPLIT_NAMES, Source
from components.shared.sources.decoding import ImageFile, decode_all
from components.shared.sources.files import Files
from components.shared.sources.kinds import USUAL_ENDINGS, ending, kind_of
from components.shared.sources.pixels import MEMORY, BadImageError, Limits, Picture

PUBLISHED = False
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
    # groups lie below their class
    class_folder = data.class_folder or ("first" if data.group == "folder" else None)
    source = Folder(Path(data.path), data.image_size, data.group, class_folder, data.memory)
    source.bits = data.grey_bits
    return source


class Folder(Source):
    """Images sorted into folders by class.

    Args:
        path: directory or archive.
        image_size: height and width to resize to, in pixels.
        group: by what images are grouped, a key of `GROUPS`; None: not at all.
        class_folder: of the folders above an image the one that names its class, "first" or "last"; None: there
            must be no other.
        memory: that decoding may take, in MiB.

    Raises:
        UserError: one line that names the file or folder which does not fit.
    """

    def __init__(
        self,
        path: Path,
        image_size: int,
        group: str | None = None,
        class_folder: str | None = None,
        memory: int = MEMORY,
    ):
        if group is not None and group not in GROUPS:
            raise UserError(f"data.group = {group}: of a folder it must be {' or '.join(GROUPS)}, or null")
        self._group = GROUPS[group] if group else lambda name, label: None
        self.location = str(path)
        self._size = image_size
        self._files = Files(path)
        self._limits = Limits(memory)
        images, self.others = _sorted_out(self._files)
        layout, self.splits = _read_layout(self._files, images, class_folder)
        self.class_names = sorted(layout.get("train", ()))
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self._items = {
            split: [(name, numbers.get(label, UNLABELLED)) for label in sorted(classes) for name in classes[label]]
            for split, classes in layout.items()
        }

    def labels(self, split: str) -> np.ndarray:
        """Labels of a split: int64, shape (N,)."""
        return np.array([label for _, label in self._items.get(split, [])], np.int64)

    def images(self, split: str) -> Iterator[Picture | BadImageError]:
        """Images of a split, class by class and sorted by name; of one that can't be read, why."""
        files, classes = self._files, ["", *self.class_names]
        return decode_all(
            (
                ImageFile(
                    files.length(name),
                    partial(files.read, name),
                    files.where(name),
                    name,
                    self._group(name, classes[label + 1]),
                )
                for name, label in self._items.get(split, [])
            ),
            self._size,
            self.bits,
            self._limits,
            self.channels,
        )

    def digest(self) -> str:
        """SHA-256 of the archive, or of all files and their names."""
        return self._files.digest()

    def close(self) -> None:
        """Close the archive."""
        self._files.close()


def _sorted_out(files: Files) -> tuple[list[str], list[tuple[str, str]]]:
    """Names of the images, of whatever kind, and of the other files with their kinds."""
    images, others = [], []
    for name in files.names:
        usual = name[name.rfind(".") :].lower() in USUAL_ENDINGS
        if usual or kind_of(files.head(name), name):
            images.append(name)
        else:
            others.append((name, ending(name)))
    return images, others


def _read_layout(files: Files, images: Sequence[str], class_folder: str | None) -> tuple[Layout, dict[str, str]]:
    """Where each image belongs, and how the splits are called."""
    if not images:
        raise UserError(f"{files.path}: holds no images; put them into <class>/ folders")
    skip = _common_top(files, images)
    splits = _split_folders(files, skip)
    layout: Layout = {}
    parents = {str(PurePosixPath(folder).parent) for folder in files.folders}
    for folder in sorted(files.folders):
        split, rest = _split_and_rest(folder, skip, splits)
        if split:
            classes = layout.setdefault(split, {})
            if split != "unlabelled" and (folder not in parents if class_folder == "last" else len(rest) == 1):
                classes.update({rest[-1]: []} if rest else {})
    homes: dict[tuple[str, str], str] = {}
    for image in images:
        split, rest = _split_and_rest(image, skip, splits)
        labelled = split != "unlabelled"
        if not split or len(rest) < 1 + labelled:
            raise UserError(f"{files.where(image)}: is in no class folder; move it into one, or remove it")
        if labelled:
            _check_depth(files, image, rest, class_folder)
        label = "" if not labelled else rest[-2] if class_folder == "last" else rest[0]
        home = image.rpartition("/")[0]
        if class_folder == "last" and labelled and homes.setdefault((split, label), home) != home:
            raise UserError(
                f"{files.where(image)}: class {label!r} has images in {homes[split, label]}/ too; rename one of "
                "the folders if they are two classes, or put their images together"
            )
        layout[split].setdefault(label, []).append(image)
    _check_classes(files, layout)
    return layout, {splits[name]: name for name in splits}


def _check_depth(files: Files, image: str, rest: tuple[str, ...], class_folder: str | None) -> None:
    inner = next((part for part in rest[:-1] if len(rest) > 2 and part.lower() in SPLIT_NAMES), None)
    if inner is not None and class_folder != "first":
        raise UserError(
            f"{files.where(image)}: {inner}/ names a split, but lies inside other folders; set data.path to the "
            f"folder that holds {inner}/, or data.class_folder=first if {rest[0]} is a class"
        )
    if len(rest) > 2 and class_folder is None:
        raise UserError(
            f"{files.where(image)}: lies in folders inside {rest[0]}/; set data.class_folder=last if "
            f"{rest[-2]} is its class, or data.class_folder=first if {rest[0]} is"
        )


def _common_top(files: Files, images: Sequence[str]) -> int:
    """How many leading folders merely hold everything, as those of archives often do."""
    # of each image and folder the folders that it lies in
    above = [tuple(image.split("/")[:-1]) for image in images]
    above += [PurePosixPath(folder).parts for folder in files.folders]
    skip = 0
    while True:
        deeper = [parts for parts in above if len(parts) > skip]
        tops = {parts[skip] for parts in deeper}
        # a folder without others inside is a class, as is one whose images lie in it
        if (
            len(tops) != 1
            or tops.pop().lower() in SPLIT_NAMES
            or not any(len(parts) > skip + 1 for parts in deeper)
        ):
            return skip
        skip += 1


def _split_and_rest(name: str, skip: int, splits: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The split that an entry belongs to ("" if it lies above all splits), and the path inside it."""
    parts = tuple(name.split("/"))[skip:]
    if not splits:
        return "train", parts
    return (splits.get(parts[0], ""), parts[1:]) if parts else ("", ())


def _split_folders(files: Files, skip: int) -> dict[str, str]:
    """The folders that are splits → the splits; none where the top folders are classes."""
    depth = skip + 1
    tops = sorted(name for name in files.folders if len(PurePosixPath(name).parts) == depth)
    splits = {name: SPLIT_NAMES.get(PurePosixPath(name).name.lower(), "") for name in tops}
    named = [name for name in tops if splits[name]]
    if not named:
        return {}
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
    return {PurePosixPath(name).name: split for name, split in splits.items()}


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
