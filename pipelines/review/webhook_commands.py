"""Announce new challengers to a reviewer, through a webhook of the MLflow server.

  export MLFLOW_TRACKING_URI=https://mlflow.example.org WEBHOOK_SECRET=…
  python -m pipelines webhook serve                                    # where the server can reach it
  python -m pipelines webhook add https://review.example.org/webhook   # once
  python -m pipelines webhook test

The secret (at least 24 characters) comes from WEBHOOK_SECRET alone; `serve` also takes what WEBHOOK_PREVIOUS_SECRET
holds, while it is changed. docs/webhook.md says the rest.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True, dest="action")
    serve = actions.add_parser("serve", help="receive what the server sends, and print a line for each challenger")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    serve.add_argument("--port", type=int, default=8008, help="default: %(default)s")
    serve.add_argument("--page", help="address of MLflow's page for people; default: MLFLOW_TRACKING_URI")
    serve.add_argument("--forward", metavar="URL", help="also post each line there; default: WEBHOOK_FORWARD")
    add = actions.add_parser("add", help="register the webhook, or bring it to a new address or secret")
    add.add_argument("url", help="where the server reaches `serve`, such as https://review.example.org/webhook")
    actions.add_parser("list", help="all webhooks of the server")
    remove = actions.add_parser("remove", help="remove the webhook")
    test = actions.add_parser("test", help="let the server send a signed example to the receiver")
    for action in (add, remove, test):
        action.add_argument("--name", default="challenger", help="of the webhook; default: %(default)s")


def main(options: argparse.Namespace) -> None:
    """Do what was asked for."""
    from pipelines.review import webhook

    if options.action == "serve":
        webhook.serve(options.host, options.port, options.page, options.forward)
    elif options.action == "add":
        webhook.add(options.url, options.name)
    elif options.action == "list":
        webhook.list_all()
    else:
        {"remove": webhook.remove, "test": webhook.test}[options.action](options.name)
