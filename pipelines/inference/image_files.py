"""Image files as people name them on a command line: found in folders, read one by one, the bad ones named."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from components.shared.errors import UserError
from components.shared.sources.decoding import in_threads
from components.shared.sources.kinds import HEAD, USUAL_ENDINGS, is_junk, kind_of
from components.shared.sources.pixels import decode
from pipelines.command_line import printable

LARGEST_FILE = 256 * 2**20  # bytes; far above any photograph, and what a few threads can hold at a time


class ImageFiles:
    """The image files that arguments name: files as they are, folders with all that lies below them.

    In folders the content decides, unless the ending is a usual one, as when a dataset is read: other files are
    left alone, images of kinds that are not read are skipped, and hidden entries and what systems leave behind are
    not looked at. A file that is named directly counts whatever it is. A file that is named twice counts once, and
    so does a folder that is reached twice, through links for example.

    Args:
        arguments: paths of files and folders, in the order in which their images shall come.

    Attributes:
        paths: of the images, as reached from the arguments; those of a folder sorted by name.
        skipped: a line for each file or folder that can't be used; told on the error stream.
        left_alone: number of files in folders that are no images.

    Raises:
        UserError: an argument names nothing, or there is no image at all.
    """

    def __init__(self, arguments: Sequence[str | Path]):
        self.skipped: list[str] = []
        self.left_alone = 0
        self._folders: set[str] = set()
        # links to one file keep their own names: DVC makes such links of files that are the same
        found: dict[tuple[str, str], Path] = {}
        for path in map(Path, arguments):
            if not os.path.lexists(path):
                raise UserError(f"{printable(path)}: no such file or folder, or no permission; check the path")
            # Path.is_dir raises where a link leads into a closed folder
            is_folder = os.path.isdir(path)  # noqa: PTH112
            for image in sorted(self._below(path)) if is_folder else [path]:
                found.setdefault((os.path.realpath(image.parent), image.name), image)
        self.paths = list(found.values())
        if not self.paths and not self.skipped:
            named = ", ".join(map(str, arguments))
            raise UserError(f"{printable(named)}: no image found; name other files")

    def skip(self, line: str) -> None:
        """Say why a file is not in the result."""
        self.skipped.append(line)
        tqdm.write(f"skipped: {printable(line)}", file=sys.stderr)

    def finish(self) -> int:
        """Say what was left alone; returns the exit status: 1 if a file was skipped, else 0."""
        if self.left_alone:
            print(f"note: other files in the folders, left alone: {self.left_alone:,}", file=sys.stderr)
        return 1 if self.skipped else 0

    def _below(self, top: Path) -> Iterator[Path]:
        for folder, folders, names in os.walk(top, onerror=self._closed, followlinks=True):
            real = os.path.realpath(folder)
            # also what ends the walk where a link leads back up
            if real in self._folders:
                folders.clear()
                continue
            self._folders.add(real)
            folders[:] = sorted(name for name in folders if not is_junk(name))
            for path in (Path(folder, name) for name in sorted(names) if not is_junk(name)):
                # others are skipped, and told, when they are read
                if path.suffix.lower() in USUAL_ENDINGS or _is_image(path):
                    yield path
                else:
                    self.left_alone += 1

    def _closed(self, error: OSError) -> None:
        self.skip(f"{error.filename}: can't be read: {error.strerror}")


def _is_image(path: Path) -> bool:
    try:
        # not a pipe, which would never answer
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return bool(kind_of(file.read(HEAD), path.name))
    except OSError:
        # to be told when it is read
        return True


def read_images(
    paths: Iterable[Path], size: int, channels: int = 3
) -> Iterator[tuple[Path, np.ndarray | UserError]]:
    """Read image files on all processors, in order, holding only a few at a time.

    Args:
        paths: of the files.
        size: height and width in pixels.
        channels: of the result.

    Returns:
        Path, and the image as a dataset would hold it (uint8, shape (size, size, channels); see
        `components.shared.sources.pixels.decode`) or why it can't be read: one bad file does not end the others.
    """
    return in_threads(partial(_read_or_refuse, size=size, channels=channels), paths)


def _read_or_refuse(path: Path, size: int, channels: int) -> tuple[Path, np.ndarray | UserError]:
    try:
        return path, _read(path, size, channels)
    except UserError as error:
        return path, error


def _read(path: Path, size: int, channels: int) -> np.ndarray:
    try:
        status = path.stat()
        # a table, and a terminal, take text
        str(path).encode()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a file; remove it")
        if status.st_size > LARGEST_FILE:
            raise UserError(f"{path}: too large: {status.st_size >> 20} MiB, at most {LARGEST_FILE >> 20} are read")
        return decode(path.read_bytes(), size, str(path), channels=channels).pixels
    except UnicodeEncodeError:
        raise UserError(f"{path}: its name is not UTF-8; rename it") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
