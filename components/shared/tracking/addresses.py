"""Addresses of tracking servers and artifacts that are files of this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite address, None where the address is none or its database is not one file."""
    name = uri.removeprefix("sqlite:///")
    if name == uri or not name or ":memory:" in name or "?" in name:
        return None
    return Path(name)


def local_path(uri: str) -> Path | None:
    """The folder of an artifact address on this machine, None where a server or a store holds it."""
    parsed = urlparse(uri)
    return Path(unquote(parsed.path)) if parsed.scheme in ("", "file") else None


def absolute_uri(uri: str) -> str:
    """The same tracking or registry address for a process in another folder: a SQLite path made absolute."""
    file = sqlite_file(uri)
    return uri if file is None else f"sqlite:///{file.resolve()}"
