"""The files of a directory, a zip or a tar archive, listed and read alike; nothing is unpacked to its place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from components.shared.digests import file_digest, value_digest
from components.shared.errors import UserError

# by the first bytes of the file
_UNPACKERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)


class Files(ABC):
    """A tree of files with relative names such as `train/cat/1.jpg`.

    Hidden files and folders and macOS's `__MACOSX` are left out. Names are in Unicode's composed form, so that the
    same tree has the same names whichever system wrote it.

    Attributes:
        path: of the directory or archive.
        names: of all files, sorted.
        folders: names of all folders.
    """

    def __init__(self, path: Path):
        self.path = path
        self._entries: dict[str, Any] = {}
        self.folders: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted by code point: the same order on every file system."""
        return sorted(self._entries)

    def where(self, name: str) -> str:
        """The name of an entry as a user would look for it."""
        return f"{self.path}: {name}"

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Content of one file.

        Raises:
            UserError: it can't be read.
        """

    def digest(self) -> str:
        """SHA-256 of the archive."""
        return file_digest(self.path)

    def close(self) -> None:
        """Close the archive."""
        return None

    def _add(self, raw_name: str, entry: Any, is_folder: bool) -> None:
        name = self._clean(raw_name)
        parts = PurePosixPath(name).parts
        if not parts or any(part.startswith(".") or part == "__MACOSX" for part in parts):
            return
        if is_folder:
            self.folders.add(name)
            return
        if name in self._entries:
            raise UserError(f"{self.where(name)}: there twice; remove one of the two")
        self._entries[name] = entry
        self.folders.update(str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")

    def _clean(self, name: str) -> str:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{self.path}: the name {name!a} is not UTF-8; rename it") from None
        return str(PurePosixPath(unicodedata.normalize("NFC", name))) if name.strip("/.") else ""

    def _refuse_unsafe(self, name: str) -> None:
        parts = name.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts or (len(parts[0]) == 2 and parts[0].endswith(":")):
            raise UserError(
                f"{self.path}: unsafe name {name!r} points outside the archive; pack it again without it"
            )


class DirectoryFiles(Files):
    """Files below a directory; links are followed."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._walk(path, "", (path.resolve(),))

    def where(self, name: str) -> str:
        """Path of an entry."""
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        """Content of one file."""
        try:
            return bytes(self._entries[name].read_bytes())
        except OSError as error:
            raise UserError(f"{self._entries[name]}: can't be read: {error.strerror}") from None

    def digest(self) -> str:
        """SHA-256 over the names and contents of all files."""
        return value_digest([[name, file_digest(self._entries[name])] for name in self.names])

    def _walk(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> None:
        try:
            children = list(folder.iterdir())
        except OSError as error:
            raise UserError(f"{folder}: can't be read: {error.strerror}") from None
        for child in children:
            if child.name.startswith("."):
                continue
            name = prefix + child.name
            if child.is_dir():
                real = child.resolve()
                if real in above:
                    raise UserError(f"{child}: links to a folder that holds it; remove the link")
                self._add(name, None, is_folder=True)
                self._walk(child, f"{name}/", (*above, real))
            elif child.is_file():
                self._add(name, child, is_folder=False)
            elif child.is_symlink():
                raise UserError(f"{child}: a link to nothing; run `dvc checkout`, or remove it")


class ZipFiles(Files):
    """Files in a zip archive."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise UserError(f"{path}: not a readable zip archive: {error}") from None
        for entry in self._archive.infolist():
            self._refuse_unsafe(entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise UserError(f"{self.where(entry.filename)}: is a link; pack the file itself")
            if entry.flag_bits & 1:
                raise UserError(f"{self.where(entry.filename)}: is encrypted; pack it without a password")
            # some Windows programs write backslashes
            self._add(entry.filename.replace("\\", "/"), entry, entry.is_dir())

    def read(self, name: str) -> bytes:
        """Content of one file, its CRC checked."""
        try:
            return self._archive.read(self._entries[name])
        except (*_DAMAGED, NotImplementedError) as error:
            raise UserError(f"{self.where(name)}: can't be unpacked: {error}; pack the archive again") from None

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


class TarFiles(Files):
    """Files in a tar archive, plain or compressed by gzip, bzip2 or xz."""

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._archive = tarfile.open(fileobj=_uncompressed(path), mode="r:")  # noqa: SIM115  (see close)
            entries = self._archive.getmembers()
        except _DAMAGED as error:
            raise UserError(f"{path}: neither a folder nor a readable zip or tar archive: {error}") from None
        for entry in entries:
            self._refuse_unsafe(entry.name)
            if not (entry.isfile() or entry.isdir()):
                raise UserError(f"{self.where(entry.name)}: is a link or device; pack the file itself")
            self._add(entry.name, entry, entry.isdir())

    def read(self, name: str) -> bytes:
        """Content of one file."""
        try:
            file = self._archive.extractfile(self._entries[name])
            return b"" if file is None else file.read()
        except _DAMAGED as error:
            raise UserError(f"{self.where(name)}: can't be unpacked: {error}; pack the archive again") from None

    def close(self) -> None:
        """Close the archive, and with it the temporary file of a compressed one."""
        self._archive.close()
        if self._archive.fileobj is not None:
            self._archive.fileobj.close()


def open_files(path: Path) -> Files:
    """List a directory or an archive (told by its content, not its ending).

    Raises:
        UserError: there is nothing at `path`, it is neither, or an entry of the archive is not safe to read.
    """
    if path.is_dir():
        return DirectoryFiles(path)
    try:
        if zipfile.is_zipfile(path):
            return ZipFiles(path)
        if path.is_file():
            return TarFiles(path)
    except PermissionError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    raise UserError(f"data.path = {path}: nothing there; run `dvc pull`, or put your images there")


def _uncompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        unpacker = _UNPACKERS.get(file.read(2))
    if unpacker is None:
        return path.open("rb")
    # going back in a compressed file means unpacking it from its start; the nameless file dies with the process
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the archive)
    with unpacker(path) as packed:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    unpacked.seek(0)
    return unpacked
