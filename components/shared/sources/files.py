"""The files of a directory, a zip or a tar archive, listed and read alike; nothing is unpacked to its place."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from components.shared.digests import file_digest, value_digest
from components.shared.errors import UserError

# by the first bytes of the file
_UNPACKERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
DAMAGED = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    NotImplementedError,
)

# of an entry: its name, whether it is a folder, why it is refused (or ""), and what reads it
Entry = tuple[str, bool, str, Callable[[], bytes]]


class Files:
    """A tree of files with relative names such as `train/cat/1.jpg`.

    Hidden files and folders and macOS's `__MACOSX` are left out. Names are in Unicode's composed form, so that the
    same tree has the same names whichever system wrote it. Links are followed in a directory and refused in an
    archive.

    Args:
        path: a directory or an archive (told by its content, not its ending).

    Attributes:
        path: of the directory or archive.
        folders: names of all folders.

    Raises:
        UserError: there is nothing at `path`, it is neither, or an entry is not safe to read.
    """

    def __init__(self, path: Path):
        self.path = path
        self.folders: set[str] = set()
        self._readers: dict[str, Callable[[], bytes]] = {}
        self._open = ExitStack()
        self._is_directory = path.is_dir()
        try:
            if self._is_directory:
                self._walk(path, "", (path.resolve(),))
            elif path.exists():
                self._list_archive()
            else:
                raise UserError(f"data.path = {path}: nothing there; run `dvc pull`, or put your images there")
        except PermissionError as error:
            raise UserError(f"{error.filename}: can't be read: {error.strerror}") from None
        except DAMAGED as error:
            raise UserError(f"{path}: neither a folder nor a readable zip or tar archive: {error}") from None

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted by code point: the same order on every file system."""
        return sorted(self._readers)

    def where(self, name: str) -> str:
        """The name of an entry as a user would look for it."""
        return str(self.path / name) if self._is_directory else f"{self.path}: {name}"

    def read(self, name: str) -> bytes:
        """Content of one file; a zip's is checked by its CRC.

        Raises:
            UserError: it can't be read.
        """
        try:
            return self._readers[name]()
        except DAMAGED as error:
            if self._is_directory:
                raise UserError(f"{self.where(name)}: can't be read: {getattr(error, 'strerror', error)}") from None
            raise UserError(f"{self.where(name)}: can't be unpacked: {error}; pack the archive again") from None

    def digest(self) -> str:
        """SHA-256 of the archive, or over the names and contents of all files of a directory."""
        if not self._is_directory:
            return file_digest(self.path)
        return value_digest([[name, hashlib.sha256(self.read(name)).hexdigest()] for name in self.names])

    def close(self) -> None:
        """Close the archive, and with it the temporary file of a compressed one."""
        self._open.close()

    def _walk(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> None:
        for child in folder.iterdir():
            if child.name.startswith("."):
                continue
            name = prefix + child.name
            if child.is_dir():
                real = child.resolve()
                if real in above:
                    raise UserError(f"{child}: links to a folder that holds it; remove the link")
                self._add(name, True, child.read_bytes)
                self._walk(child, f"{name}/", (*above, real))
            elif child.is_file():
                self._add(name, False, child.read_bytes)
            elif child.is_symlink():
                raise UserError(f"{child}: a link to nothing; run `dvc checkout`, or remove it")

    def _list_archive(self) -> None:
        entries = _zip_entries if zipfile.is_zipfile(self.path) else _tar_entries
        for name, is_folder, refusal, reader in entries(self.path, self._open):
            parts = name.replace("\\", "/").split("/")
            if parts[0] == "" or ".." in parts or (len(parts[0]) == 2 and parts[0].endswith(":")):
                raise UserError(
                    f"{self.path}: unsafe name {name!r} points outside the archive; pack it again without it"
                )
            if refusal:
                raise UserError(f"{self.where(name)}: {refusal}")
            self._add(name, is_folder, reader)

    def _add(self, raw_name: str, is_folder: bool, reader: Callable[[], bytes]) -> None:
        try:
            raw_name.encode()
        except UnicodeEncodeError:
            raise UserError(f"{self.path}: the name {raw_name!a} is not UTF-8; rename it") from None
        path = PurePosixPath(unicodedata.normalize("NFC", raw_name))
        name = str(path)
        if not path.parts or any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            return
        if name in self._readers:
            raise UserError(f"{self.where(name)}: there twice; remove one of the two")
        if is_folder:
            self.folders.add(name)
        else:
            self._readers[name] = reader
        self.folders.update(str(parent) for parent in path.parents if parent.parts)


def _zip_entries(path: Path, stack: ExitStack) -> Iterator[Entry]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for entry in archive.infolist():
        refusal = ""
        if stat.S_ISLNK(entry.external_attr >> 16):
            refusal = "is a link; pack the file itself"
        elif entry.flag_bits & 1:
            refusal = "is encrypted; pack it without a password"
        # some Windows programs write backslashes
        yield entry.filename.replace("\\", "/"), entry.is_dir(), refusal, partial(archive.read, entry)


def _tar_entries(path: Path, stack: ExitStack) -> Iterator[Entry]:
    archive = stack.enter_context(tarfile.open(fileobj=_uncompressed(path, stack), mode="r:"))  # noqa: SIM115
    for entry in archive.getmembers():
        refusal = "" if entry.isfile() or entry.isdir() else "is a link or device; pack the file itself"
        yield entry.name, entry.isdir(), refusal, partial(_read_tar, archive, entry)


def _read_tar(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    return file.read() if file else b""


def _uncompressed(path: Path, stack: ExitStack) -> IO[bytes]:
    file = stack.enter_context(path.open("rb"))
    unpacker = _UNPACKERS.get(file.read(2))
    file.seek(0)
    if unpacker is None:
        return file
    # going back in a compressed file means unpacking it from its start; the nameless file dies with the process
    unpacked = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with unpacker(file) as packed:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    unpacked.seek(0)
    return unpacked
