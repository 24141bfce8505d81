"""The commands of `contrastive review` and `contrastive webhook`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pipelines.command_line import new_group, shared_options

app = new_group(
    """Review registered models: list, show, approve, reject, withdraw, roll back, history.

    $ contrastive review list
    $ contrastive review show 3
    $ contrastive review approve 3 --reason "better on stripes and dots"

    The models are those of params.yaml's section `registry`; the registry is
    MLFLOW_TRACKING_URI. The same can be done on MLflow's page: the version
    with the alias `champion` is the champion, whoever set it.
    """
)
webhook_app = new_group(
    """Announce new challengers to a reviewer, through a webhook of the MLflow server.

    $ export MLFLOW_TRACKING_URI=https://mlflow.example.org WEBHOOK_SECRET=…
    $ contrastive webhook serve                                    # where the server can reach it
    $ contrastive webhook add https://review.example.org/webhook   # once
    $ contrastive webhook test

    The secret (at least 24 characters) comes from WEBHOOK_SECRET alone;
    `serve` also takes what WEBHOOK_PREVIOUS_SECRET holds, while it is changed.
    docs/webhook.md says the rest.
    """
)


@dataclass(frozen=True)
class ModelOptions:
    """Which registered models are reviewed."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="that versions are put up in; default: registry.model_name in params.yaml"
        ),
    ] = None
    production_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="approved versions are copied into it; default: registry.production_model, beside its model_name",
        ),
    ] = None


@dataclass(frozen=True)
class DecisionOptions(ModelOptions):
    """Which registered models are reviewed, and by whom."""

    reviewer: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="who decides; default: MLFLOW_TRACKING_USERNAME, else the login name"),
    ] = None


Number = Annotated[int, typer.Argument(metavar="N", min=1, help="number of the version")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="why; goes on record")]
WebhookName = Annotated[str, typer.Option(metavar="NAME", help="of the webhook")]
Json = Annotated[bool, typer.Option("--json", help="for programs")]


@app.command(name="list")
@shared_options
def list_versions(
    models: ModelOptions,
    last: Annotated[int, typer.Option(metavar="N", help="so many of the newest", min=1, max=100_000)] = 50,
    as_json: Json = False,
) -> None:
    """Challenger, champion and the newest other versions side by side."""
    from pipelines.review import actions

    actions.list_versions(models, last, as_json)


@app.command()
@shared_options
def show(number: Number, models: ModelOptions) -> None:
    """One version: its card, the gate's checks, decisions, and where its report and pictures are."""
    from pipelines.review import actions

    actions.show(models, str(number))


@app.command()
@shared_options
def approve(
    number: Number,
    reason: Reason,
    by: DecisionOptions,
    override: Annotated[
        bool,
        typer.Option(
            "--override", help="although the gate did not pass, was weakened, or the version was rejected"
        ),
    ] = False,
) -> int:
    """Make a version champion; the one before is kept for rollback."""
    from pipelines.review import actions

    return actions.decide("approve", by, str(number), reason, override=override)


@app.command()
@shared_options
def reject(number: Number, reason: Reason, by: DecisionOptions) -> int:
    """Put on record that a version is not wanted."""
    from pipelines.review import actions

    return actions.decide("reject", by, str(number), reason)


@app.command()
@shared_options
def withdraw(number: Number, reason: Reason, by: DecisionOptions) -> int:
    """Take the champion out of service; none is champion until one is approved or rolled back to."""
    from pipelines.review import actions

    return actions.decide("withdraw", by, str(number), reason)


@app.command()
@shared_options
def rollback(by: DecisionOptions, reason: Reason = "no reason given") -> int:
    """Make the previous champion champion again."""
    from pipelines.review import actions

    return actions.decide("rollback", by, None, reason)


@app.command()
@shared_options
def history(models: ModelOptions, as_json: Json = False) -> None:
    """Who decided what, when and why; and what was changed without a decision."""
    from pipelines.review import actions

    actions.show_history(models, as_json)


@webhook_app.command()
def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=65535)] = 8008,
    page: Annotated[
        str | None,
        typer.Option(metavar="URL", help="MLflow's page for people; default: MLFLOW_TRACKING_URI"),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="also post each line to this incoming webhook, as Slack's; default: WEBHOOK_FORWARD in the "
            "environment, which keeps it out of the list of processes",
        ),
    ] = None,
) -> None:
    """Receive what the server sends, and print a line for each challenger."""
    from pipelines.review import webhook

    webhook.serve(host, port, page, forward)


@webhook_app.command()
def add(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="where the server reaches `serve`, such as https://review.example.org/webhook"
        ),
    ],
    name: WebhookName = "challenger",
) -> None:
    """Register the webhook, or bring it to a new address or secret."""
    from pipelines.review import webhook

    webhook.add(url, name)


@webhook_app.command(name="list")
def list_webhooks() -> None:
    """All webhooks of the server."""
    from pipelines.review import webhook

    webhook.list_all()


@webhook_app.command()
def remove(name: WebhookName = "challenger") -> None:
    """Remove the webhook."""
    from pipelines.review import webhook

    webhook.remove(name)


@webhook_app.command()
def test(name: WebhookName = "challenger") -> None:
    """Let the server send a signed example to the receiver."""
    from pipelines.review import webhook

    webhook.test(name)
