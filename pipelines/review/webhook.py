"""Announce new challengers to a reviewer, through a webhook of the MLflow server: docs/webhook.md."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import mlflow
import requests
import uvicorn
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from components.shared.errors import UserError, first_line
from components.shared.registry.versions import CHALLENGER
from components.shared.tracking.client import if_there, limit_requests
from pipelines.command_line import printable
from pipelines.review.details import announcement, host

EVENT = "model_version_alias.created"
TOLERANCE = 300  # seconds that clocks may differ by and MLflow's retries may take
TIMEOUT = 10  # seconds of a request; MLflow gives up on a delivery after 30
SHORTEST_SECRET = 24  # characters, as 18 random bytes have in Base64
LARGEST_BODY = 65536  # MLflow sends some 200 bytes


class _Alias(BaseModel):
    name: str = Field(min_length=1)
    alias: str
    version: str = Field(pattern=r"^[0-9]{1,18}$")  # it goes into a command


class _Event(BaseModel):
    entity: Literal["model_version_alias"]
    action: Literal["created"]
    data: _Alias


# As Standard Webhooks do, under other header names and with a secret that is no Base64. Their standardwebhooks 1.1
# meets malformed input with ValueError, binascii.Error, UnicodeDecodeError: to translate and guard is no shorter.
def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends with a delivery. Source: mlflow.webhooks.delivery."""
    signed = f"{delivery}.{timestamp}.".encode("latin-1", "replace") + body  # headers come as Latin-1
    return f"v1,{base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()}"


def distrust(headers: Mapping[str, str], body: bytes, secrets: list[str]) -> str | None:
    """Why a delivery is no fresh one of the server, in words that repeat nothing of it; None where it is."""
    delivery, timestamp = headers.get("x-mlflow-delivery-id"), headers.get("x-mlflow-timestamp")
    signature = headers.get("x-mlflow-signature", "").encode("latin-1", "replace")
    if not (delivery and timestamp and signature):
        return "not signed"
    if not any(hmac.compare_digest(sign(it, delivery, timestamp, body).encode(), signature) for it in secrets):
        return "the signature does not match"
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE:
        return f"its time is more than {TOLERANCE} seconds off"
    return None


class Receiver:
    """Announces each version that becomes challenger, once: printed, and posted to `forward` where that is set."""

    def __init__(self, secrets: list[str], page: str, forward: str | None) -> None:
        self.secrets, self.page, self.forward = secrets, page, forward
        self.announced: set[tuple[str, str, int]] = set()
        self.one_at_a_time = asyncio.Lock()

    async def receive(self, request: Request) -> Response:
        """Answer one delivery, when it is dealt with: MLflow's own retries are the queue, 503 brings it again."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                return PlainTextResponse(f"more than {LARGEST_BODY} bytes", 413)
        if why := distrust(request.headers, body, self.secrets):
            print(f"refused: {why}", file=sys.stderr, flush=True)
            return PlainTextResponse(why, 401)
        try:
            async with self.one_at_a_time:
                await asyncio.to_thread(self._announce, body)
        except ValidationError:
            return PlainTextResponse("not a set alias", 400)
        except UserError as error:
            print(f"error: {printable(str(error))}; MLflow sends it again", file=sys.stderr, flush=True)
            return PlainTextResponse("not announced yet", 503)
        return Response(status_code=204)

    def _announce(self, body: bytes) -> None:
        alias = _Event.model_validate_json(body).data
        if alias.alias != CHALLENGER:
            return
        with _server() as client:
            found = if_there(client.get_model_version, alias.name, alias.version)
        if found is None or (alias.name, alias.version, found.creation_timestamp) in self.announced:
            return
        line = announcement(alias.name, alias.version, found.tags, self.page)
        if self.forward:
            post(self.forward, line)
        print(line, flush=True)
        self.announced.add((alias.name, alias.version, found.creation_timestamp))


def post(address: str, text: str) -> None:
    """Post a text to an incoming webhook, whose address is itself a secret that no error repeats."""
    # these three mean something there: without it, a model's name could call a whole channel
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    try:
        answer = requests.post(address, json={"text": escaped}, timeout=TIMEOUT, allow_redirects=False)
    except requests.RequestException as error:
        raise UserError(f"not forwarded ({type(error).__name__}): {text}") from None
    if not 200 <= answer.status_code < 300:
        raise UserError(f"not forwarded (answered {answer.status_code}): {text}")


def serve(address: str, port: int, page: str | None, forward: str | None) -> None:
    """Receive what the server sends to `/webhook`, until the process is ended."""
    secrets = [_secret("WEBHOOK_SECRET")]
    if os.environ.get("WEBHOOK_PREVIOUS_SECRET"):
        secrets.append(_secret("WEBHOOK_PREVIOUS_SECRET"))
    with _server():
        receiver = Receiver(secrets, page or str(host()), forward or os.environ.get("WEBHOOK_FORWARD"))
    health = Route("/health", lambda request: PlainTextResponse("ok"))
    app = Starlette(routes=[Route("/webhook", receiver.receive, methods=["POST"]), health])
    uvicorn.run(app, host=address, port=port, access_log=False, server_header=False, limit_concurrency=100)


def add(url: str, name: str) -> None:
    """Register the webhook, or bring it to a new address or secret."""
    secret = _secret("WEBHOOK_SECRET")
    with _server() as client:
        known = _named(client, name)
        if known:
            client.update_webhook(known[0].webhook_id, url=url, events=[EVENT], secret=secret, status="ACTIVE")
        else:
            client.create_webhook(name, url, [EVENT], secret=secret)
    print(f"{name}: {'updated' if known else 'added'}; the server uses it within a minute: {url}")


def list_all() -> None:
    """Print all webhooks of the server."""
    with _server() as client:
        for webhook in client.list_webhooks(max_results=1000):
            print(f"{webhook.name}  {webhook.status}  {webhook.url}  {', '.join(map(str, webhook.events))}")


def remove(name: str) -> None:
    """Remove the webhook."""
    with _server() as client:
        known = _named(client, name)
        for webhook in known:
            client.delete_webhook(webhook.webhook_id)
    print(f"{name}: {f'removed {len(known)}' if known else 'there is none'}")


def test(name: str) -> None:
    """Let the server send a signed example to the receiver."""
    with _server() as client:
        known = _named(client, name)
        if not known:
            raise UserError(f"{name}: the server has no webhook of this name; `webhook add` registers it")
        result = client.test_webhook(known[0].webhook_id, EVENT)
    answer = f"{result.response_status or ''} {result.response_body or result.error_message or ''}".strip()
    if not result.success:
        raise UserError(f"{name}: {known[0].url} answered {answer}; check the receiver and its secret")
    print(f"{name}: the receiver took a signed example and answered {answer}")


def _secret(name: str) -> str:
    secret = os.environ.get(name, "")
    if len(secret) < SHORTEST_SECRET:
        raise UserError(f"{name}: {len(secret)} characters; set it to at least {SHORTEST_SECRET} random ones")
    return secret


def _named(client: mlflow.MlflowClient, name: str) -> list[Any]:
    return [webhook for webhook in client.list_webhooks(max_results=1000) if webhook.name == name]


@contextmanager
def _server() -> Iterator[mlflow.MlflowClient]:
    """A client of the server; what goes wrong with it is said in one line."""
    if host() is None:
        raise UserError(f"MLFLOW_TRACKING_URI = {mlflow.get_registry_uri()}: only a server has webhooks; name one")
    limit_requests(retries=1, seconds=TIMEOUT)
    try:
        yield mlflow.MlflowClient()
    except (mlflow.MlflowException, OSError) as error:
        hint = "check the address, the account (webhooks are for administrators) and the server's log"
        raise UserError(f"{host()}: {first_line(error)}; {hint}") from None
