"""Webhooks of an MLflow server: registering one for new challengers, trying it, and reading what became challenger.

MLflow calls a webhook when an alias is set. What it sends names model, version and alias alone, so the version's
tags are read from the registry.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from components.shared.errors import UserError
from components.shared.tracking.client import if_there

EVENT = "model_version_alias.created"
ABOUT = "Tells a reviewer of a new challenger"
# to be done before MLflow gives up on a delivery, after 30 s by its default
SECONDS = 10


@dataclass(frozen=True)
class Webhook:
    """A webhook as the server knows it; the server never shows its secret.

    Attributes:
        name: by which it is found again.
        url: that the server posts to.
        status: ACTIVE or DISABLED.
        events: that it is called for, such as `model_version_alias.created`.
        identity: the server's own name for it.
    """

    name: str
    url: str
    status: str
    events: tuple[str, ...]
    identity: str


def list_webhooks() -> list[Webhook]:
    """All webhooks of the server, by name.

    Raises:
        UserError: the server does not answer, or does not let this account see them.
    """
    with _server() as client:
        found, token = [], None
        while True:
            page = client.list_webhooks(max_results=100, page_token=token)
            found += [_described(webhook) for webhook in page]
            token = page.token
            if not token:
                return sorted(found, key=lambda webhook: (webhook.name, webhook.identity))


def add_webhook(name: str, url: str, secret: str) -> bool:
    """Register a webhook for new aliases, or bring the one of this name to this address and secret.

    Args:
        name: letters, digits, dots, underscores and hyphens.
        url: that the server shall post to.
        secret: that it shall sign with.

    Returns:
        Whether it is new.

    Raises:
        UserError: several have this name, the server refuses the address or the name, or does not answer.
    """
    known = _named(name)
    if len(known) > 1:
        raise UserError(f"{name}: {len(known)} webhooks have this name; remove them first")
    with _server() as client:
        if not known:
            client.create_webhook(name, url, [EVENT], description=ABOUT, secret=secret)
        else:
            client.update_webhook(known[0].identity, url=url, events=[EVENT], secret=secret, status="ACTIVE")
    return not known


def remove_webhook(name: str) -> int:
    """Remove the webhooks of this name; returns how many there were.

    Raises:
        UserError: the server does not answer, or does not let this account do it.
    """
    known = _named(name)
    with _server() as client:
        for webhook in known:
            client.delete_webhook(webhook.identity)
    return len(known)


def try_webhook(name: str) -> str:
    """Let the server send an example of the event, signed as a real one, to the one webhook of this name.

    Returns:
        What the receiver answered.

    Raises:
        UserError: there is no such webhook, or its receiver did not take the delivery.
    """
    known = _named(name)
    if len(known) != 1:
        names = ", ".join(sorted({webhook.name for webhook in list_webhooks()})) or "none"
        raise UserError(f"{name}: {len(known)} webhooks have this name; the server has: {names}")
    with _server() as client:
        result = client.test_webhook(known[0].identity, EVENT)
    answer = f"{result.response_status} {result.response_body or ''}".strip()
    if not result.success:
        why = f"answered {answer}" if result.response_status else (result.error_message or "did not answer")
        raise UserError(f"{name}: {known[0].url} {_first_line(why)}; check the receiver and its secret")
    return answer


def registered_tags(name: str, number: str) -> dict[str, str] | None:
    """The tags of a version, None where the registry does not have it.

    Raises:
        UserError: the registry does not answer.
    """
    with _server() as client:
        version = if_there(client.get_model_version, name, number)
        return None if version is None else dict(version.tags)


def server_address() -> str:
    """Where the registry is, without a password.

    Raises:
        UserError: it is not a server: only servers have webhooks.
    """
    import mlflow

    uri = str(mlflow.get_registry_uri())
    if not re.match(r"https?://[^/]", uri):
        raise UserError(
            f"MLFLOW_TRACKING_URI = {uri}: only a server has webhooks; set it to one, "
            "such as https://mlflow.example.org"
        )
    return re.sub(r"//[^/@]*@", "//", uri).rstrip("/")


@contextmanager
def _server() -> Iterator[Any]:
    # a server that is away must be an answer within seconds, not a hang
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
    import mlflow
    from mlflow.exceptions import MlflowException

    address = server_address()
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, OSError) as error:
        told = str(error)
        hint = "check the address and the account"
        if "Permission denied" in told or "403" in told:
            hint = "webhooks are for the server's administrators"
        elif "500 error" in told:
            # seen where a server was started anew with another key: it then can't read the secrets it has stored
            hint = "see its log; was it started with another MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY?"
        raise UserError(f"{address}: {_first_line(told) or type(error).__name__}; {hint}") from None


def _named(name: str) -> list[Webhook]:
    return [webhook for webhook in list_webhooks() if webhook.name == name]


def _described(webhook: Any) -> Webhook:
    events = tuple(sorted(str(event) for event in webhook.events))
    return Webhook(webhook.name, webhook.url, str(webhook.status), events, webhook.webhook_id)


def _first_line(text: str) -> str:
    # a password in an address must not get into a log
    return re.sub(r"//[^/@\s]*@", "//", next(iter(text.strip().splitlines()), ""))[:300].rstrip(". ")
