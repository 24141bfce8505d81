"""Key pairs to sign models with, made when a test runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Keys(NamedTuple):
    """Files of a private key and its public one."""

    private: Path
    public: Path

    def variables(self) -> dict[str, str]:
        """What names both to whoever signs."""
        return {"CONTRASTIVE_SIGNING_KEY": str(self.private), "CONTRASTIVE_PUBLIC_KEY": str(self.public)}


def make_keys(folder: Path) -> Keys:
    """A new pair, as `openssl ecparam -name prime256v1 -genkey -noout` and `openssl ec -pubout` make it."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = Keys(folder / "private.pem", folder / "public.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    keys.private.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    )
    keys.public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return keys
