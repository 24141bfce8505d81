"""The receiver of an MLflow webhook: tells a reviewer of each new challenger, once.

Each delivery is answered when it is dealt with, so that MLflow's own retries are the queue: what can't be told just
now is answered with 503 and comes again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from components.shared.errors import UserError
from components.shared.registry.versions import CHALLENGER
from pipelines.inference.image_files import shown
from pipelines.review.webhooks.announcement import announcement
from pipelines.review.webhooks.registration import EVENT, SECONDS, registered_tags
from pipelines.review.webhooks.signature import TOLERANCE, UnverifiedError, verify

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PATH = "/webhook"
# MLflow sends some 200 bytes
LARGEST_BODY = 65536


class Event(BaseModel):
    """What every delivery holds."""

    entity: str
    action: str
    data: dict[str, Any]


class Alias(BaseModel):
    """The data of a set alias. The number goes into a command, so it must be one."""

    name: str = Field(min_length=1)
    alias: str
    version: str = Field(pattern=r"^[0-9]{1,18}$")


@dataclass
class Receiver:
    """Deals with deliveries.

    Attributes:
        secrets: any of them may have signed a delivery.
        page: address of MLflow's page for people.
        forward: address of an incoming webhook (Slack, Mattermost, …) to post to; None prints only.
    """

    secrets: Sequence[str]
    page: str
    forward: str | None = None
    _seen: dict[str, float] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)

    async def receive(self, request: Request) -> Response:
        """Answer one delivery.

        Returns:
            204 told, or nothing to tell; 400 signed, but not an event; 401 not signed as it must be; 408 and 413
            too slow and too long; 503 it could not be told, and shall come again.
        """
        from starlette.responses import PlainTextResponse, Response

        try:
            async with asyncio.timeout(SECONDS):
                body = await _body(request)
        except TimeoutError:
            return PlainTextResponse("too slow", 408)
        if body is None:
            return PlainTextResponse(f"more than {LARGEST_BODY} bytes", 413)
        try:
            delivery = verify(request.headers, body, self.secrets, time.time())
        except UnverifiedError as why:
            print(f"refused: {why}", file=sys.stderr, flush=True)
            return PlainTextResponse(str(why), 401)
        if delivery in self._busy:
            return PlainTextResponse("in progress", 503)
        if self._known(delivery):
            return Response(status_code=204)
        self._busy.add(delivery)
        try:
            await asyncio.to_thread(self.handle, body)
        except ValidationError:
            print("refused: signed, but not an event of MLflow's", file=sys.stderr, flush=True)
            return PlainTextResponse("not an event", 400)
        except UserError as error:
            print(f"error: {shown(str(error))}; MLflow sends it again", file=sys.stderr, flush=True)
            return PlainTextResponse("not told yet", 503)
        finally:
            self._busy.discard(delivery)
        self._seen[delivery] = time.monotonic()
        return Response(status_code=204)

    def handle(self, body: bytes) -> None:
        """Tell of the challenger that a verified delivery is about; other events and aliases are nothing to tell.

        Raises:
            pydantic.ValidationError: it is not an event.
            UserError: the registry or the address to forward to does not answer.
        """
        event = Event.model_validate_json(body)
        if f"{event.entity}.{event.action}" != EVENT:
            return
        alias = Alias.model_validate(event.data)
        if alias.alias != CHALLENGER:
            return
        tags = registered_tags(alias.name, alias.version)
        if tags is None:
            print(f"ignored: {shown(alias.name)} version {alias.version} is gone", file=sys.stderr, flush=True)
            return
        text = announcement(alias.name, alias.version, tags, self.page)
        if self.forward is not None:
            post(self.forward, text)
        print(text, flush=True)

    def _known(self, delivery: str) -> bool:
        # older ones are refused for their time
        oldest = time.monotonic() - 2 * TOLERANCE
        self._seen = {known: since for known, since in self._seen.items() if since > oldest}
        return delivery in self._seen


async def _body(request: Request) -> bytes | None:
    """The request's body, None where it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            return None
    return body


def post(address: str, text: str) -> None:
    """Post a text to an incoming webhook.

    Args:
        address: which is itself a secret, so that no error repeats it.
        text: in one line.

    Raises:
        UserError: it does not answer, or does not take the text.
    """
    import requests

    # these three mean something there: without it, a model's name could call a whole channel
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    try:
        answer = requests.post(address, json={"text": escaped}, timeout=SECONDS, allow_redirects=False)
    except requests.RequestException as error:
        raise UserError(f"not forwarded ({type(error).__name__}): {text}") from None
    if not 200 <= answer.status_code < 300:
        raise UserError(f"not forwarded (answered {answer.status_code}): {text}")


def application(receiver: Receiver) -> Starlette:
    """The receiver as a web application: `POST /webhook`, and `GET /health` for probes."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[Route(PATH, receiver.receive, methods=["POST"]), Route("/health", health, methods=["GET"])]
    )
