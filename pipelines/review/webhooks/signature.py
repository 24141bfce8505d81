"""Proving that a webhook's delivery comes from the MLflow server, and is fresh.

The server signs `<delivery id>.<timestamp>.<body>` with a secret that both sides know. Nothing of a delivery is
looked at before that is checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence

ID, TIMESTAMP, SIGNATURE = "x-mlflow-delivery-id", "x-mlflow-timestamp", "x-mlflow-signature"
VERSION = "v1"
# seconds that clocks may differ by and MLflow's retries may take; Standard Webhooks advises five minutes
TOLERANCE = 300


class UnverifiedError(Exception):
    """Why a delivery can't be trusted, in a few words that repeat nothing of it."""


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends with a delivery.

    Args:
        secret: that both sides know.
        delivery: the delivery's id.
        timestamp: whole seconds since 1970, as text.
        body: as sent.

    Returns:
        `v1,` and the HMAC-SHA256 in Base64.

    Source: mlflow.webhooks.delivery, after https://www.standardwebhooks.com.
    """
    # Latin-1 is how HTTP headers come; both are ASCII in what MLflow sends
    signed = b".".join([delivery.encode("latin-1", "replace"), timestamp.encode("latin-1", "replace"), body])
    return f"{VERSION},{base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()}"


def verify(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float) -> str:
    """Check signature and age of a delivery.

    Args:
        headers: of the request; looked up in lower case.
        body: as received.
        secrets: any of them may have signed it: while a secret is changed there are two.
        now: seconds since 1970.

    Returns:
        The delivery's id, which its repetitions share.

    Raises:
        UnverifiedError: a header is missing, no secret signed it, or it is older than `TOLERANCE` or from the
            future.
    """
    delivery, timestamp, signature = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not (delivery and timestamp and signature):
        raise UnverifiedError("not signed")
    given = signature.encode("latin-1", "replace")
    # all are compared, in a time that tells nothing of how much is right
    matches = [hmac.compare_digest(sign(secret, delivery, timestamp, body).encode(), given) for secret in secrets]
    if not any(matches):
        raise UnverifiedError("the signature does not match")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(now - int(timestamp)) > TOLERANCE:
        raise UnverifiedError(f"its time is more than {TOLERANCE} seconds off")
    return delivery
