"""Tell a reviewer of new challengers, through a webhook of the MLflow server.

  export MLFLOW_TRACKING_URI=https://mlflow.example.org WEBHOOK_SECRET=…
  python -m pipelines webhook serve                                    # where the server can reach it
  python -m pipelines webhook add https://review.example.org/webhook   # once
  python -m pipelines webhook test

The secret (at least 24 characters) comes from WEBHOOK_SECRET alone; `serve` also takes what WEBHOOK_PREVIOUS_SECRET
holds, while it is changed. docs/webhook.md tells the rest.
"""

from __future__ import annotations

import argparse
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
NAME = "challenger"
# as many characters as 18 random bytes have in Base64
SHORTEST_SECRET = 24
# more at once than any registry sends; further ones are answered 503
CONNECTIONS = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    serve = actions.add_parser("serve", help="receive what the server sends, and print a line for each challenger")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    serve.add_argument("--port", type=int, default=8008, help="default: %(default)s")
    serve.add_argument("--page", help="address of MLflow's page for people; default: MLFLOW_TRACKING_URI")
    serve.add_argument(
        "--forward",
        metavar="URL",
        help="also post each line to this incoming webhook, as Slack's; "
        f"default: {FORWARD} in the environment, which keeps it out of the list of processes",
    )
    serve.set_defaults(action=_serve)

    add = actions.add_parser("add", help="register the webhook, or bring it to a new address or secret")
    add.add_argument("url", help=f"where the server reaches `serve`, such as https://review.example.org{PATH}")
    add.set_defaults(action=_add)

    show = actions.add_parser("list", help="all webhooks of the server")
    show.set_defaults(action=_list)

    remove = actions.add_parser("remove", help="remove the webhook")
    remove.set_defaults(action=_remove)

    test = actions.add_parser("test", help="let the server send a signed example to the receiver")
    test.set_defaults(action=_test)

    for action in (add, remove, test):
        action.add_argument("--name", default=NAME, help="of the webhook; default: %(default)s")


def main(options: argparse.Namespace) -> None:
    """Do what was asked for.

    Raises:
        UserError: no server, no secret, or the server refuses.
    """
    options.action(options)


def _serve(options: argparse.Namespace) -> None:
    registry = server_address()
    page, forward = options.page or registry, options.forward or os.environ.get(FORWARD)
    secrets = [_secret(SECRET)]
    if os.environ.get(PREVIOUS):
        secrets.append(_secret(PREVIOUS))
    _check_url("--page", page)
    if forward:
        # the whole address is not told: it is a secret
        _check_url("the address to forward to", forward, shown=f"{forward[:8]}…")
    listening = _listen(options.host, options.port)
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


def _add(options: argparse.Namespace) -> None:
    _check_url("url", options.url)
    new = add_webhook(options.name, options.url, _secret(SECRET))
    print(f"{options.name}: {'added' if new else 'updated'}; the server uses it within a minute: {options.url}")


def _list(options: argparse.Namespace) -> None:
    found = list_webhooks()
    for webhook in found:
        print(f"{webhook.name}  {webhook.status}  {webhook.url}  {', '.join(webhook.events)}")
    if not found:
        print("no webhooks")


def _remove(options: argparse.Namespace) -> None:
    count = remove_webhook(options.name)
    print(f"{options.name}: {f'removed {count}' if count else 'there is none'}")


def _test(options: argparse.Namespace) -> None:
    print(f"{options.name}: the receiver took a signed example and answered {try_webhook(options.name)}")


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
