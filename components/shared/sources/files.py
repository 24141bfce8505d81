"""The files of a directory, a zip or a tar archive, listed and read alike; nothing is unpacked to its place."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import lzma
import os
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
from pathlib import Path
from typing import IO, Any, NamedTuple

from components.shared.digests import file_digest, value_digest
from components.shared.errors import UserError
from components.shared.sources.kinds import HEAD, is_junk

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

_STARTS = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "packed by zstd",
    b"\x04\x22\x4d\x18": "packed by lz4",
    b"LZIP": "packed by lzip",
    b"\x1f\x9d": "packed by compress",
}
# of the built-in sample, which alone comes with a clone
SAMPLE = ("data", "sample")


class Member(NamedTuple):
    """One file of a tree: its length in bytes, what reads so many bytes of it, and its place, "" for none."""

    length: int
    read: Callable[[int], bytes]
    place: str = ""


# of an entry of an archive: its name, whether it is a folder, why it is refused (or ""), and the file
Entry = tuple[str, bool, str, Member]


class Files:
    """A tree of files with relative names such as `train/cat/1.jpg`.

    Hidden files and what systems leave behind (`kinds.JUNK`) are left out. Names are in Unicode's composed form, so
    that the same tree has the same names whichever system wrote it. Links are followed in a directory and refused
    in an archive.

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
        self._members: dict[str, Member] = {}
        self._digests: dict[str, str] = {}
        self._open = ExitStack()
        self._is_directory = path.is_dir()
        self._before = str(path / "_")[:-1] if self._is_directory else f"{path}: "
        try:
            if self._is_directory:
                self._walk(path, "", (path.resolve(),))
            elif path.exists():
                self._list_archive()
            else:
                raise UserError(f"data.path = {path}: nothing there; {how_to_get(path)}")
        except PermissionError as error:
            raise UserError(f"{error.filename}: can't be read: {error.strerror}") from None
        except DAMAGED as error:
            raise UserError(f"{path}: {_what_is_wrong(path, error)}") from None

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted by code point: the same order on every file system."""
        return sorted(self._members)

    def where(self, name: str) -> str:
        """The name of an entry as a user would look for it."""
        return self._before + name

    def length(self, name: str) -> int:
        """Bytes of one file, unpacked."""
        return self._members[name].length

    def head(self, name: str) -> bytes:
        """The first `HEAD` bytes of one file; raises as `read`."""
        return self._read(name, HEAD)

    def read(self, name: str) -> bytes:
        """Content of one file; a zip's is checked by its CRC. Several threads may read at once.

        Raises:
            UserError: it can't be read.
        """
        length = self._members[name].length
        # one more: a zip's CRC is only looked at beyond the end
        content = self._read(name, length + 1)
        if len(content) != length:
            raise UserError(f"{self.where(name)}: can't be read: {len(content):,} of {length:,} bytes are there")
        if self._is_directory:
            self._digests[name] = hashlib.sha256(content).hexdigest()
        return content

    def digest(self) -> str:
        """SHA-256 of the archive, or over the names and contents of all files of a directory."""
        if not self._is_directory:
            return file_digest(self.path)
        return value_digest([[name, self._digests.get(name) or self._digest(name)] for name in self.names])

    def _digest(self, name: str) -> str:
        place = Path(self._members[name].place or self.path / name)
        try:
            return file_digest(place)
        except OSError as error:
            raise UserError(f"{self.where(name)}: can't be read: {error.strerror}") from None

    def _read(self, name: str, count: int) -> bytes:
        try:
            return self._members[name].read(count)
        except DAMAGED as error:
            if self._is_directory:
                raise UserError(f"{self.where(name)}: can't be read: {getattr(error, 'strerror', error)}") from None
            raise UserError(f"{self.where(name)}: can't be unpacked: {error}; pack the archive again") from None

    def close(self) -> None:
        """Close the archive, and with it the temporary file of a compressed one."""
        self._open.close()

    def _walk(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_junk(entry.name):
                    continue
                # as text: a hundred thousand paths take a second to be parsed
                name, child = prefix + entry.name, entry.path
                if entry.is_dir():
                    real = Path(child).resolve()
                    if real in above:
                        raise UserError(f"{child}: links to a folder that holds it; remove the link")
                    self._add(name, True, Member(0, partial(_read_place, child), child))
                    self._walk(Path(child), f"{name}/", (*above, real))
                elif entry.is_file():
                    self._add(name, False, Member(entry.stat().st_size, partial(_read_place, child), child))
                elif entry.is_symlink():
                    raise UserError(f"{child}: a link to nothing; run `dvc checkout`, or remove it")

    def _list_archive(self) -> None:
        entries = _zip_entries if zipfile.is_zipfile(self.path) else _tar_entries
        for name, is_folder, refusal, member in entries(self.path, self._open):
            parts = name.replace("\\", "/").split("/")
            if parts[0] == "" or ".." in parts or (len(parts[0]) == 2 and parts[0].endswith(":")):
                raise UserError(
                    f"{self.path}: unsafe name {name!r} points outside the archive; pack it again without it"
                )
            if refusal:
                raise UserError(f"{self.where(name)}: {refusal}")
            named = [part for part in name.split("/") if part not in ("", ".")]
            if named and not any(map(is_junk, named)):
                self._add("/".join(named), is_folder, member)

    def _add(self, name: str, is_folder: bool, member: Member) -> None:
        # most names are plain, and of a hundred thousand each step counts
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                raise UserError(f"{self.path}: the name {name!a} is not UTF-8; rename it") from None
            name = unicodedata.normalize("NFC", name)
        if name in self._members:
            raise UserError(f"{self.where(name)}: there twice; remove one of the two")
        if is_folder:
            self.folders.add(name)
        else:
            self._members[name] = member
        # where the nearest is known, those above it are
        while (name := name.rpartition("/")[0]) and name not in self.folders:
            self.folders.add(name)


def _zip_entries(path: Path, stack: ExitStack) -> Iterator[Entry]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for entry in archive.infolist():
        refusal = ""
        if stat.S_ISLNK(entry.external_attr >> 16):
            refusal = "is a link; pack the file itself"
        elif entry.flag_bits & 1:
            refusal = "is encrypted; pack it without a password"
        # some Windows programs write backslashes
        name = entry.filename.replace("\\", "/")
        yield name, entry.is_dir(), refusal, Member(entry.file_size, partial(_read_zip, archive, entry))


def _tar_entries(path: Path, stack: ExitStack) -> Iterator[Entry]:
    file = _uncompressed(path, stack)
    archive = stack.enter_context(tarfile.open(fileobj=file, mode="r:"))  # noqa: SIM115
    length = os.fstat(file.fileno()).st_size
    for entry in archive:
        refusal = "" if entry.isfile() or entry.isdir() else "is a link or device; pack the file itself"
        if entry.issparse():
            refusal = "is a sparse file; pack it without the option --sparse"
        if entry.offset_data + entry.size > length:
            raise EOFError(f"{entry.name} breaks off")
        # not by tarfile, which several threads can't share
        member = Member(entry.size, partial(_read_part, file, entry.offset_data, entry.size))
        yield entry.name, entry.isdir(), refusal, member


def _read_place(path: str, count: int) -> bytes:
    # not as a file object, which takes a third longer for a small one
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(file, count)
        # one byte fewer than asked for is the whole file as a rule: to look whether it is costs as much as to read
        while 0 < len(content) < count - 1 and (more := os.read(file, count - len(content))):
            content += more
        return content
    finally:
        os.close(file)


def _read_zip(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, count: int) -> bytes:
    with archive.open(entry) as file:
        return file.read(count)


def _read_part(file: IO[bytes], begin: int, length: int, count: int) -> bytes:
    content = bytearray()
    wanted = min(count, length)
    while len(content) < wanted:
        part = os.pread(file.fileno(), wanted - len(content), begin + len(content))
        if not part:
            break
        content += part
    return bytes(content)


def _uncompressed(path: Path, stack: ExitStack) -> IO[bytes]:
    file = stack.enter_context(path.open("rb"))
    unpacker = _UNPACKERS.get(file.read(2))
    file.seek(0)
    if unpacker is None:
        return file
    # going back in a compressed file means unpacking it from its start; the nameless file dies with the process
    unpacked = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    with unpacker(file) as packed:
        try:
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(
                f"{path}: no room in {tempfile.gettempdir()} to unpack it ({unpacked.tell():,} bytes fit); set "
                "TMPDIR to a folder on a larger disk, or pack it as .zip or plain .tar, which are read in place"
            ) from None
    unpacked.seek(0)
    return unpacked


def how_to_get(path: Path) -> str:
    """What to do where a source's material is missing."""
    if path.parts[: len(SAMPLE)] == SAMPLE:
        return "run `dvc pull -r sample`"
    return "put your images there, or run `dvc pull` if a DVC remote of yours has them"


def _what_is_wrong(path: Path, error: Exception) -> str:
    """Why a file is no archive that can be read, and what to do."""
    with path.open("rb") as file:
        start = file.read(8)
    for known, what in _STARTS.items():
        if start.startswith(known):
            return f"{what}, which is not read; unpack it, or pack it as .zip, .tar or .tar.gz"
    if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return f"a zip archive that breaks off after {path.stat().st_size:,} bytes; copy or download it again"
    if isinstance(error, EOFError) or "unexpected end of data" in str(error):
        return f"an archive that breaks off ({error}); copy or download it again"
    return f"neither a folder nor a readable zip or tar archive: {error}"
