"""Signing a model that is registered, and refusing to use one that is not as it was signed.

The private key's file is named by `CONTRASTIVE_SIGNING_KEY`, that of the public key by `CONTRASTIVE_PUBLIC_KEY`.
Whoever names a public key uses signed models alone; with `registry.require_signature` everybody must name one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow

from components.shared.digests import file_digest
from components.shared.errors import UserError, first_line
from components.shared.evaluation.gate import read_blessing
from components.shared.registry import signed_files
from components.shared.registry.signed_files import ADDED, PUBLIC_KEY, hashed_files, public_keys

SIGNING_KEY = "CONTRASTIVE_SIGNING_KEY"
# of a model's folder in MLflow
MODEL_FILE = "data/model.keras"


def fetch(uri: str, place: Path) -> Path:
    """Download a model's files, without what loading it has left among them.

    Args:
        uri: that MLflow knows.
        place: an empty folder to write into.

    Returns:
        The model's folder.

    Raises:
        UserError: MLflow does not give them.
    """
    # MLflow draws a bar for each file
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(place)))
    except Exception as error:  # each artifact store has its own exceptions
        raise UserError(first_line(error)) from None
    for name in ADDED:
        # a signature does not cover them
        left = folder / name
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)
    return folder


def require_signed(folder: Path, name: str, required: bool) -> bool:
    """Check a model's files against their signature, where a public key is named.

    Args:
        folder: of the model.
        name: of the model, for the message.
        required: `registry.require_signature`.

    Returns:
        Whether they were checked.

    Raises:
        UserError: the model is not signed, was changed, or no public key is named although one must be.
    """
    keys = public_keys()
    if required and not keys:
        raise UserError(
            f"{PUBLIC_KEY}: not set, and registry.require_signature = true; set it to the file of the public key"
        )
    if keys:
        with _one_line(f"{name}: "):
            signed_files.require_signed(folder, keys)
    return bool(keys)


def require_signed_version(uri: str, name: str, tags: Mapping[str, str], required: bool) -> None:
    """Check a version before it becomes champion: its files, and that its tags say what was signed.

    Args:
        uri: of the version.
        name: of the version, for the message.
        tags: of the version, which whoever may write to the registry can change.
        required: `registry.require_signature`.

    Raises:
        UserError: as `require_signed`; or a tag says something else than the signed verdict.
    """
    if not required and not public_keys():
        return
    with tempfile.TemporaryDirectory(prefix="signed-") as place:
        try:
            folder = fetch(uri, Path(place))
        except UserError as error:
            raise UserError(f"{name}: its files can't be had, to check their signature: {error}") from None
        require_signed(folder, name, required)
        blessing = read_blessing(folder)
        signed = {
            "artifact_digest": file_digest(folder / MODEL_FILE),
            "dataset_digest": blessing.dataset_digest,
            "verdict": blessing.verdict,
            "weaker": "; ".join(blessing.weaker),
        }
    for tag, value in signed.items():
        if tags.get(tag, "") != value:
            raise UserError(f"{name}: tag {tag} = {tags.get(tag, '')!r}: {value!r} was signed; somebody changed it")


class Signer:
    """Signs models with a private key.

    Args:
        key: file of the private key, of an elliptic curve, as PEM.

    Raises:
        UserError: it is none, or `CONTRASTIVE_PUBLIC_KEY` does not name the one that belongs to it.
    """

    def __init__(self, key: Path):
        self.key = key
        with _one_line():
            from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
            from model_signing import signing
        try:
            signing.Config().use_elliptic_key_signer(private_key=key)
            own = load_pem_private_key(key.read_bytes(), None).public_key()
        except Exception as error:  # of the file, of its text, and of keys of another kind
            raise UserError(
                f"{SIGNING_KEY} = {key}: no private key of an elliptic curve as PEM without a password "
                f"({first_line(error)}); make one with `openssl ecparam -name prime256v1 -genkey -noout`"
            ) from None
        for path in public_keys():
            with _one_line():
                signed_files.verifier_of(path)
                if load_pem_public_key(path.read_bytes()) == own:
                    return
        named = os.environ.get(PUBLIC_KEY) or "not set"
        raise UserError(f"{PUBLIC_KEY} = {named}: must name the public key of {SIGNING_KEY} = {key} too")

    def sign(self, folder: Path, signature: Path) -> None:
        """Write a signature of all files in a folder, as they are now.

        Args:
            folder: of the model.
            signature: file to write; in the folder itself or elsewhere.
        """
        from model_signing import signing

        config = signing.Config().use_elliptic_key_signer(private_key=self.key)
        config.set_hashing_config(hashed_files()).sign(folder, signature)


def find_signer(required: bool) -> Signer | None:
    """What signs the models that are registered here; None where no key is named.

    Args:
        required: `registry.require_signature`.

    Raises:
        UserError: the key is none, or no key is named although models must be signed.
    """
    key = os.environ.get(SIGNING_KEY)
    if key:
        return Signer(Path(key))
    if required or public_keys():
        why = "registry.require_signature = true" if required else f"{PUBLIC_KEY} asks for signed models"
        raise UserError(f"{SIGNING_KEY}: not set, and {why}; set it to the file of the private key")
    return None


@contextmanager
def _one_line(prefix: str = "") -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        install = "`make env` installs it, `uv pip install model-signing pyopenssl` elsewhere"
        raise UserError(f"{error.name}: is not installed, and signed models need it; {install}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{prefix}{error}") from None
