"""Content digests: SHA-256 of files and of parameters, as hexadecimal text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def file_digest(path: Path) -> str:
    """SHA-256 of one file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of several files, independent of the order they are given in."""
    return joint_digest((path.name, file_digest(path)) for path in paths)


def joint_digest(digests: Iterable[tuple[str, str]]) -> str:
    """What `files_digest` is of files whose names and `file_digest` are known."""
    lines = sorted(f"{name} {digest}" for name, digest in digests)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def value_digest(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
