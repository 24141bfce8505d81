"""Material at an address, `https://`, `s3://` or `gs://`: fetched whole, checked, and kept in `.cache/remote/`.

Of the source `folder` the address is that of one archive; of `parquet` that of a .parquet file or of a folder of
them (over https one that its server lists). What is kept is used again for as long as the server says that nothing
changed: the same sizes and entity tags or times. With `data.digest` the content itself must be what it was, and a
copy that is kept needs no network. s3:// needs the package s3fs, gs:// gcsfs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiohttp
import fsspec

from components.shared.artifacts import replace_file
from components.shared.digests import file_digest, files_digest, value_digest
from components.shared.errors import UserError, first_line, redacted, without_account
from components.shared.params.schema import DataParams
from components.shared.progress import Progress
from components.shared.sources import is_address

CACHE = Path(".cache/remote")
PROTOCOLS = ("https", "http", "s3", "gs")
SOURCES = ("folder", "parquet")
# by which servers tell that a file changed, whatever they call it
_VALIDATORS = ("ETag", "etag", "Last-Modified", "LastModified", "md5Hash", "mtime", "updated")
_RECORD = "fetched.json"
ANSWER_SECONDS, SILENT_SECONDS = 20, 60


def fetch(data: DataParams) -> Path:
    """The local copy of what is at `data.path`: a file for the source `folder`, a folder for `parquet`.

    Raises:
        UserError: the address can't be read here, there is nothing, or its content is not that of `data.digest`.
    """
    _check(data)
    address = data.path
    folder = CACHE / value_digest([address, data.source])[:16]
    known = _read_record(folder)
    whole = bool(known) and _digest(folder, data) == known.get("digest")
    if whole and data.digest == known["digest"]:
        return _local(folder, data)
    states = _states(data)
    if whole and data.digest is None and known.get("states") == states and all(map(_is_certain, states.values())):
        return _local(folder, data)
    print(f"ingest: fetching {without_account(address)} into {folder}/", flush=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _download(address, states, partial)
        found = _digest(partial, data)
        if data.digest is not None and found != data.digest:
            raise UserError(
                f"{without_account(address)}: its SHA-256 is {found}, not data.digest = {data.digest}; "
                "find out what changed, or give the new one"
            )
        if data.digest is None:
            print(f"ingest: its SHA-256 is {found}: with data.digest={found} nothing else is taken", flush=True)
        replace_file(partial / _RECORD, json.dumps({"digest": found, "states": states}).encode())
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return _local(folder, data)


def state(data: DataParams) -> str:
    """What the server says of the material, as a digest that changes with it; "" where it does not say enough.

    Raises:
        UserError: as of `fetch`.
    """
    _check(data)
    states = _states(data)
    return value_digest(states) if all(map(_is_certain, states.values())) else ""


def _check(data: DataParams) -> None:
    protocol = data.path.partition("://")[0].lower()
    if protocol not in PROTOCOLS:
        raise UserError(f"data.path = {redacted(data.path)}: must begin with {'://, '.join(PROTOCOLS)}://")
    if data.source not in SOURCES:
        raise UserError(f"data.path = {redacted(data.path)}: data.source = {data.source} takes a folder here")
    if not _is_safe(protocol) and data.digest is None:
        raise UserError(
            f"data.path = {redacted(data.path)}: what comes by http:// may be changed on its way; use https://, or "
            "give its SHA-256 as data.digest"
        )


def _is_safe(protocol: str) -> bool:
    return protocol != "http"


def _file_system(address: str) -> tuple[Any, str]:
    protocol = address.partition("://")[0].lower()
    # a fresh one: what is kept would answer with the listings and the account of before
    options: dict[str, Any] = {"skip_instance_cache": True}
    if protocol in ("http", "https"):
        # aiohttp would give up a large file after five minutes
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS, sock_read=SILENT_SECONDS)
        options["client_kwargs"] = {"timeout": timeout, "trust_env": True}
    return fsspec.core.url_to_fs(address, use_listings_cache=False, **options)


def _states(data: DataParams) -> dict[str, dict[str, Any]]:
    """Path of each file → its size and validators, as its server tells them."""
    address = data.path
    try:
        files, path = _file_system(address)
        paths = [path]
        if data.source == "parquet" and not _name(path).lower().endswith(".parquet"):
            listed = files.ls(path, detail=False)
            paths = sorted(found for found in listed if _name(found).lower().endswith(".parquet"))
            if not paths:
                raise FileNotFoundError("no .parquet files there")
        states = {}
        for each in paths:
            info = files.info(each)
            if info.get("type") == "directory":
                raise FileNotFoundError("a folder, where one file, such as an archive, is expected")
            states[each] = {key: str(info[key]) for key in ("size", *_VALIDATORS) if info.get(key) is not None}
    except ImportError as error:
        raise UserError(f"{without_account(address)}: {first_line(error)} (a Python package)") from None
    except Exception as error:  # each file system has exceptions of its own
        raise UserError(f"{without_account(address)}: can't be read: {_reason(error)}") from None
    return states


def _download(address: str, states: dict[str, dict[str, Any]], folder: Path) -> None:
    progress = Progress("ingest", len(states), "file")
    try:
        files, _ = _file_system(address)
        for path, known in states.items():
            to = folder / _name(path)
            if to.exists():
                raise UserError(f"{without_account(address)}: has {to.name} twice")
            files.get_file(path, str(to))
            size = to.stat().st_size
            if int(known.get("size", size)) != size:
                raise OSError(f"{size:,} of {int(known['size']):,} bytes came")
            progress.step()
    except UserError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise UserError(f"{without_account(address)}: can't be fetched: {_reason(error)}") from None
    finally:
        progress.close()


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        # over the web, that no server answered is a file that is not there too
        return f"nothing there ({first_line(error.__cause__ or error)})"
    return first_line(error) or type(error).__name__


def _name(path: str) -> str:
    """The file's own name; of a web address without what follows the path."""
    name = unquote(urlsplit(path).path if is_address(path) else path).rstrip("/").rpartition("/")[2]
    return name or "data"


def _is_certain(known: dict[str, Any]) -> bool:
    return any(name in known for name in _VALIDATORS)


def _digest(folder: Path, data: DataParams) -> str:
    """As the source will find it."""
    path = _local(folder, data)
    return file_digest(path) if path.is_file() else files_digest(_members(folder))


def _local(folder: Path, data: DataParams) -> Path:
    return folder if data.source == "parquet" else _members(folder)[0]


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name != _RECORD)


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / _RECORD).read_bytes())
        return found
    except (OSError, ValueError):
        return {}
