"""Announce new challengers to a reviewer, through a webhook of the MLflow server (docs/webhook.md).

Each delivery is answered when it is dealt with, so that MLflow's own retries are the queue: what can't be announced
just now is answered with 503 and comes again.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mlflow
import requests
import uvicorn
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from components.shared.errors import UserError, first_line, masked
from components.shared.registry.versions import CHALLENGER
from components.shared.tracking.run import if_there
from pipelines.inference.image_files import shown
from pipelines.review.details import version_page
from pipelines.review.state import ModelVersion

SECRET, PREVIOUS_SECRET, FORWARD = "WEBHOOK_SECRET", "WEBHOOK_PREVIOUS_SECRET", "WEBHOOK_FORWARD"
EVENT, PATH = "model_version_alias.created", "/webhook"
# as many characters as 18 random bytes have in Base64; MLflow sends some 200 bytes
SHORTEST_SECRET, LARGEST_BODY = 24, 65536
# that clocks may differ by and retries may take; for each thing that a delivery waits for: MLflow gives up after 30 s
TOLERANCE, SECONDS = 300, 10


class Alias(BaseModel):
    """What an event says of an alias; the number goes into a command, so it must be one."""

    name: str = Field(min_length=1)
    alias: str
    version: str = Field(pattern=r"^[0-9]{1,18}$")


class Event(BaseModel):
    """What every delivery holds."""

    entity: str
    action: str
    data: dict[str, Any]


def sign(secret: str, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature of a delivery: `v1,` and an HMAC-SHA256, as mlflow.webhooks.delivery makes it."""
    # headers come as Latin-1
    signed = f"{delivery}.{timestamp}.".encode("latin-1", "replace") + body
    return f"v1,{base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()}"


def distrust(headers: Mapping[str, str], body: bytes, secrets: list[str]) -> str | None:
    """Why a delivery is not a fresh one of MLflow's, in words that repeat nothing of it; None where it is."""
    delivery, timestamp, signature = (
        headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp", "signature")
    )
    if not (delivery and timestamp and signature):
        return "not signed"
    given = signature.encode("latin-1", "replace")
    if not any(hmac.compare_digest(sign(secret, delivery, timestamp, body).encode(), given) for secret in secrets):
        return "the signature does not match"
    if not re.fullmatch(r"[0-9]{1,12}", timestamp) or abs(time.time() - int(timestamp)) > TOLERANCE:
        return f"its time is more than {TOLERANCE} seconds off"
    return None


class Receiver:
    """Announces each version that becomes challenger, once: printed, and posted to `forward` if that is set."""

    def __init__(self, secrets: list[str], page: str, forward: str | None) -> None:
        self.secrets, self.page, self.forward = secrets, page, forward
        self.announced: set[tuple[str, str, int]] = set()
        self.one_at_a_time = asyncio.Lock()

    async def receive(self, request: Request) -> Response:
        """Answer one delivery; docs/webhook.md lists the answers."""
        body = b""
        try:
            async with asyncio.timeout(SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > LARGEST_BODY:
                        return PlainTextResponse(f"more than {LARGEST_BODY} bytes", 413)
        except TimeoutError:
            return PlainTextResponse("too slow", 408)
        if why := distrust(request.headers, body, self.secrets):
            print(f"refused: {why}", file=sys.stderr, flush=True)
            return PlainTextResponse(why, 401)
        try:
            async with self.one_at_a_time:
                await asyncio.to_thread(self.announce, body)
        except ValidationError:
            return PlainTextResponse("not an event", 400)
        except UserError as error:
            print(f"error: {shown(str(error))}; MLflow sends it again", file=sys.stderr, flush=True)
            return PlainTextResponse("not announced yet", 503)
        return Response(status_code=204)

    def announce(self, body: bytes) -> None:
        """Announce the challenger of an event; other events, other aliases and versions that are gone are none."""
        event = Event.model_validate_json(body)
        if f"{event.entity}.{event.action}" != EVENT:
            return
        alias = Alias.model_validate(event.data)
        if alias.alias != CHALLENGER:
            return
        with _server() as client:
            found = if_there(client.get_model_version, alias.name, alias.version)
        if found is None or (alias.name, alias.version, found.creation_timestamp) in self.announced:
            return
        line = announcement(alias.name, ModelVersion.of(found), self.page)
        if self.forward:
            post(self.forward, line)
        print(line, flush=True)
        self.announced.add((alias.name, alias.version, found.creation_timestamp))


def announcement(model: str, version: ModelVersion, page: str) -> str:
    """One line: model, version, verdict, gain, where to look, and the command that shows it."""
    verdict = version.tags.get("verdict", "verdict unknown, not registered by the pipeline")
    gain = f", gain {version.gain_in_words}" if version.gain_in_words else ""
    command = f"contrastive review show {version.number} --model {shlex.quote(model)}"
    said = f"{model} version {version.number} waits for review: {verdict}{gain}"
    return shown(f"{said} | {version_page(model, version.number, page)} | {command}")


def post(address: str, text: str) -> None:
    """Post a text to an incoming webhook, whose address is itself a secret that no error repeats.

    Raises:
        UserError: it does not answer, or does not take the text.
    """
    # these three mean something there: without it, a model's name could call a whole channel
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    try:
        answer = requests.post(address, json={"text": escaped}, timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise UserError(f"not forwarded ({type(error).__name__}): {text}") from None
    if not 200 <= answer.status_code < 300:
        raise UserError(f"not forwarded (answered {answer.status_code}): {text}")


def serve(host: str, port: int, page: str | None, forward: str | None) -> None:
    """Receive what the server sends at `POST /webhook`, until the process is ended.

    Args:
        page: address of MLflow's page for people; None is MLFLOW_TRACKING_URI.
        forward: address of an incoming webhook (Slack, Mattermost, …); None looks at WEBHOOK_FORWARD.

    Raises:
        UserError: no server, no secret, or nothing can listen there.
    """
    forward = forward or os.environ.get(FORWARD)
    if forward and not forward.startswith(("https://", "http://")):
        raise UserError(f"the address to forward to = {forward[:8]}…: must begin with https:// or http://")
    secrets = [_secret(SECRET), *([_secret(PREVIOUS_SECRET)] if os.environ.get(PREVIOUS_SECRET) else [])]
    with _server():
        receiver = Receiver(secrets, (page or host() or "").rstrip("/"), forward)
    routes = [
        Route(PATH, receiver.receive, methods=["POST"]),
        Route("/health", lambda _: PlainTextResponse("ok"), methods=["GET"]),
    ]
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: can't listen: {first_line(error)}; choose another") from None
    print(f"listening on {host} port {port}, path {PATH}", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="warning", server_header=False, limit_concurrency=100
    )
    uvicorn.Server(config).run(sockets=[listening])


def add(url: str, name: str) -> None:
    """Register the webhook, or bring it to a new address or secret."""
    if not url.startswith(("https://", "http://")):
        raise UserError(f"url = {url}: must begin with https:// or http://")
    settings = {"url": url, "events": [EVENT], "secret": _secret(SECRET)}
    with _server() as client:
        known = _named(client, name)
        for webhook in known:
            client.update_webhook(webhook.webhook_id, status="ACTIVE", **settings)
        if not known:
            client.create_webhook(name, description="Announces a new challenger", **settings)
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
    """Let the server send a signed example to the receiver.

    Raises:
        UserError: there is no such webhook, or its receiver did not take the delivery.
    """
    with _server() as client:
        known = _named(client, name)
        if not known:
            raise UserError(f"{name}: there is no webhook of this name; `webhook add` registers it")
        result = client.test_webhook(known[0].webhook_id, EVENT)
    answer = f"{result.response_status} {result.response_body or ''}".strip()
    if not result.success:
        why = f"answered {answer}" if result.response_status else result.error_message or "did not answer"
        raise UserError(f"{name}: {known[0].url} {why}; check the receiver and its secret")
    print(f"{name}: the receiver took a signed example and answered {answer}")


def _secret(variable: str) -> str:
    secret = os.environ.get(variable, "")
    if len(secret) < SHORTEST_SECRET:
        raise UserError(
            f"{variable}: {len(secret)} characters; set it to at least {SHORTEST_SECRET}, "
            "such as `openssl rand -hex 32` makes"
        )
    return secret


def _named(client: mlflow.MlflowClient, name: str) -> list[Any]:
    return [webhook for webhook in client.list_webhooks(max_results=1000) if webhook.name == name]


@contextmanager
def _server() -> Iterator[mlflow.MlflowClient]:
    """A client of the server; what goes wrong with it is said in one line."""
    uri = str(mlflow.get_registry_uri())
    if not uri.startswith(("https://", "http://")):
        raise UserError(f"MLFLOW_TRACKING_URI = {uri}: only a server has webhooks; set it to one")
    # a server that is away must be an answer within seconds, not a hang
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
    try:
        yield mlflow.MlflowClient()
    except (MlflowException, OSError) as error:
        hint = "check the address and the account; webhooks are for administrators"
        if "500 error" in str(error):
            # seen where a server was started anew with another key: it then can't read the secrets it has stored
            hint = "see its log; was it started with another MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY?"
        raise UserError(f"{masked(uri)}: {first_line(error)}; {hint}") from None
