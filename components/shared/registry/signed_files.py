"""Whether a model's files are as they were signed: a copy of this file goes into the model's folder.

It runs wherever the model is loaded, without this project. Signatures are those of OpenSSF Model Signing with a key
of one's own: `model_signing verify key` checks them too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIGNATURE = "model.sig"
# the public key's file; several, separated as in PATH, while a key is replaced
PUBLIC_KEY = "CONTRASTIVE_PUBLIC_KEY"
# what MLflow and Python write into a folder that they load a model from
ADDED = ("registered_model_meta", "code/__pycache__")


def public_keys() -> list[Path]:
    """The files that `CONTRASTIVE_PUBLIC_KEY` names; none where it is not set."""
    return [Path(name) for name in os.environ.get(PUBLIC_KEY, "").split(os.pathsep) if name]


def hashed_files() -> Any:
    """Which files are hashed: all; by itself the library leaves out those of git."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[SIGNATURE, *ADDED], ignore_git_paths=False)


def verifier_of(key: Path) -> Any:
    """What checks signatures with a public key; raises as `require_signed`."""
    from model_signing import verifying

    try:
        return verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # of the file, of its text, and of keys of another kind
        why = f"no public key of an elliptic curve as PEM ({_words(error)})"
        raise ValueError(f"{PUBLIC_KEY} = {key}: {why}; make one with `openssl ec -pubout`") from None


def require_signed(folder: Path, keys: Sequence[Path]) -> None:
    """Check that a model has all the files, unchanged and no more, that the owner of one of the keys signed.

    Args:
        folder: of the model, with `model.sig`.
        keys: files of public keys, at least one.

    Raises:
        ValueError: it is not signed, by none of the keys, or something was changed; or a key is none.
        ModuleNotFoundError: `model_signing` is not installed.
    """
    from sigstore_models.bundle.v1 import Bundle

    verifiers = [verifier_of(key) for key in keys]
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise ValueError(f"it is not signed (it has no {SIGNATURE})")
    faults = []
    for verifier in verifiers:
        try:
            verifier.set_hashing_config(hashed_files()).verify(folder, signature)
            text = signature.read_text(encoding="utf-8")
            # Base64 has several texts for the same bytes
            if Bundle.from_json(text).to_json() != text:
                raise ValueError(f"{SIGNATURE} was changed")
            return
        except Exception as error:  # whatever a changed signature makes the parsers raise
            faults.append(_words(error))
    others = [fault for fault in faults if not fault.startswith("Key mismatch")]
    raise ValueError(others[0] if others else f"it is signed with another key than {PUBLIC_KEY} names")


def _words(error: Exception) -> str:
    said = " ".join(str(error).split()).replace("\\'", "'")
    changed = re.findall(r"Hash mismatch for '(.+?)': Expected", said)
    if changed:
        # the library tells their digests, as Python writes bytes
        return f"{', '.join(changed[:3])}: changed since it was signed"
    return said[:200] or type(error).__name__
