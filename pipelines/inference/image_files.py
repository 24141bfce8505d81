"""Image files as people name them on a command line: found in folders, read one by one, the bad ones named."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from components.shared.errors import UserError
from components.shared.sources.folder import ENDINGS, OTHER_IMAGES
from components.shared.sources.pixels import CHUNK, decode
from pipelines.command_line import printable

LARGEST_FILE = 256 * 2**20  # bytes; far above any photograph, and what a few threads can hold at a time


class ImageFiles:
    """The image files that arguments name: files as they are, folders with all that lies below them.

    In folders the ending decides, in either case, as when a dataset is read: other files are left alone, images of
    other kinds (GIF, TIFF, …) are refused, and hidden entries and macOS's `__MACOSX` are not looked at. A file that
    is named directly counts whatever its ending. A file that is named twice counts once, and so does a folder that
    is reached twice, through links for example.

    Args:
        arguments: paths of files and folders, in the order in which their images shall come.

    Attributes:
        paths: of the images, as reached from the arguments; those of a folder sorted by name.
        refused: a line for each file or folder that can't be used.
        left_alone: number of files in folders that have no ending of an image.

    Raises:
        UserError: an argument names nothing, or there is no image at all.
    """

    def __init__(self, arguments: Sequence[str | Path]):
        self.paths: list[Path] = []
        self.refused: list[str] = []
        self.left_alone = 0
        self._seen: set[tuple[Path, str]] = set()
        self._folders: set[Path] = set()
        for argument in arguments:
            self._argument(Path(argument))
        if not self.paths and not self.refused:
            named = ", ".join(map(str, arguments))
            raise UserError(
                f"{printable(named)}: no image found (.jpg, .jpeg, .png or .webp); name files or folders"
            )

    def _argument(self, path: Path) -> None:
        try:
            if path.is_dir():
                self._walk(path)
            elif path.exists() or path.is_symlink():
                self._add(path, path.parent.resolve())
            else:
                raise UserError(f"{printable(path)}: no such file or folder; check the path")
        except OSError as error:
            self._refuse(path, f"can't be read: {error.strerror}")

    def _walk(self, folder: Path) -> None:
        try:
            real = folder.resolve()
            # also what ends the walk where a link leads back up
            if real in self._folders:
                return
            self._folders.add(real)
            children = sorted(folder.iterdir(), key=lambda child: child.name)
        except OSError as error:
            self._refuse(folder, f"can't be read: {error.strerror}")
            return
        for child in children:
            if child.name.startswith(".") or child.name == "__MACOSX":
                continue
            try:
                is_folder = child.is_dir()
            except OSError as error:
                self._refuse(child, f"can't be read: {error.strerror}")
                continue
            if is_folder:
                self._walk(child)
            else:
                self._file(child, real)

    def _file(self, path: Path, real_folder: Path) -> None:
        ending = path.suffix.lower()
        if ending in ENDINGS:
            self._add(path, real_folder)
        elif ending in OTHER_IMAGES:
            self._refuse(path, f"{ending} images are not read; convert it to JPEG, PNG or WebP")
        else:
            self.left_alone += 1

    def _add(self, path: Path, real_folder: Path) -> None:
        # links to one file keep their own names: DVC makes such links of files that are the same
        key = (real_folder, path.name)
        if key in self._seen:
            return
        self._seen.add(key)
        try:
            str(path).encode()
        except UnicodeEncodeError:
            self._refuse(path, "its name is not UTF-8; rename it")
            return
        self.paths.append(path)

    def _refuse(self, path: Path, why: str) -> None:
        self.refused.append(f"{path}: {why}")


def read_images(paths: Iterable[Path], size: int) -> Iterator[tuple[Path, np.ndarray | str]]:
    """Read image files on all processors, in order, holding only a few at a time.

    Args:
        paths: of the files.
        size: height and width in pixels.

    Yields:
        Path, and the image as a dataset would hold it (uint8, shape (size, size, 3); see
        `components.shared.sources.pixels.decode`) or a line that says why it can't be read.
    """
    workers = os.cpu_count() or 1
    source = iter(paths)
    pending: deque[Future[list[tuple[Path, np.ndarray | str]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while chunk := list(islice(source, CHUNK)):
                pending.append(pool.submit(lambda chunk: [(path, _read(path, size)) for path in chunk], chunk))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(path: Path, size: int) -> np.ndarray | str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return f"{path}: not a file; remove it"
        if not status.st_size:
            return f"{path}: is empty; repair or remove it"
        if status.st_size > LARGEST_FILE:
            return f"{path}: too large: {status.st_size >> 20} MiB, at most {LARGEST_FILE >> 20} are read"
        return decode(path.read_bytes(), size, str(path))
    except FileNotFoundError:
        return f"{path}: is gone, or a link to nothing"
    except OSError as error:
        return f"{path}: can't be read: {error.strerror}"
    except UserError as error:
        return str(error)
