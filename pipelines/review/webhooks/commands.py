"""What the commands of `contrastive webhook` do, and print."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit

from components.shared.errors import UserError
from pipelines.review.webhooks.receiver import PATH, Receiver, application
from pipelines.review.webhooks.registration import (
    add_webhook,
    list_webhooks,
    remove_webhook,
    server_address,
    try_webhook,
)

SECRET, PREVIOUS, FORWARD = "WEBHOOK_SECRET", "WEBHOOK_PREVIOUS_SECRET", "WEBHOOK_FORWARD"
# as many characters as 18 random bytes have in Base64
SHORTEST_SECRET = 24
# more at once than any registry sends; further ones are answered 503
CONNECTIONS = 100


def serve(host: str, port: int, page: str | None, forward: str | None) -> None:
    """Receive what the server sends, until the process is ended.

    Args:
        host, port: to listen on.
        page: address of MLflow's page for people; None is the server's own.
        forward: address of an incoming webhook that gets each line; None looks at WEBHOOK_FORWARD.

    Raises:
        UserError: no server, no secret, or nothing can listen there.
    """
    registry = server_address()
    page, forward = page or registry, forward or os.environ.get(FORWARD)
    secrets = [_secret(SECRET)]
    if os.environ.get(PREVIOUS):
        secrets.append(_secret(PREVIOUS))
    _check_url("--page", page)
    if forward:
        # the whole address is not told: it is a secret
        _check_url("the address to forward to", forward, shown=f"{forward[:8]}…")
    listening = _listen(host, port)
    _run(Receiver(secrets, page.rstrip("/"), forward or None), listening)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--host {host} --port {port}: can't listen: {why}; choose another") from None


def _run(receiver: Receiver, listening: socket.socket) -> None:
    import uvicorn

    settings = uvicorn.Config(
        application(receiver),
        log_level="warning",
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=25,
        limit_concurrency=CONNECTIONS,
    )
    host, port = listening.getsockname()[:2]
    told = "printed and forwarded" if receiver.forward else "printed"
    print(f"listening on {host} port {port}, path {PATH}; new challengers are {told}", file=sys.stderr, flush=True)
    uvicorn.Server(settings).run(sockets=[listening])


def add(url: str, name: str) -> None:
    """Register the webhook, or bring it to a new address or secret."""
    _check_url("url", url)
    new = add_webhook(name, url, _secret(SECRET))
    print(f"{name}: {'added' if new else 'updated'}; the server uses it within a minute: {url}")


def list_all() -> None:
    """Print all webhooks of the server."""
    found = list_webhooks()
    for webhook in found:
        print(f"{webhook.name}  {webhook.status}  {webhook.url}  {', '.join(webhook.events)}")
    if not found:
        print("no webhooks")


def remove(name: str) -> None:
    """Remove the webhook."""
    count = remove_webhook(name)
    print(f"{name}: {f'removed {count}' if count else 'there is none'}")


def test(name: str) -> None:
    """Let the server send a signed example."""
    print(f"{name}: the receiver took a signed example and answered {try_webhook(name)}")


def _secret(variable: str) -> str:
    secret = os.environ.get(variable, "")
    if len(secret) < SHORTEST_SECRET:
        raise UserError(
            f"{variable}: {len(secret)} characters; set it to at least {SHORTEST_SECRET}, "
            "such as `openssl rand -hex 32` makes"
        )
    return secret


def _check_url(field: str, url: str, shown: str | None = None) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise UserError(f"{field} = {shown or url}: must be an address that begins with https:// or http://")
