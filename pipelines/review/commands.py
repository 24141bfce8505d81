"""Review registered models: list, show, approve, reject, roll back, and what was decided before.

  python -m pipelines review list
  python -m pipelines review show 3
  python -m pipelines review approve 3 --reason "better on stripes and dots"

The models are those of params.yaml's section `registry`; the registry is MLFLOW_TRACKING_URI. The same can be done
in MLflow's page: the version with the alias `champion` is the champion, whoever set it.
"""

from __future__ import annotations

import argparse

NO_REASON = "no reason given"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands of the review and their options."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--model", metavar="NAME", help="that versions are put up in; default: registry.model_name in params.yaml"
    )
    common.add_argument(
        "--production-model",
        metavar="NAME",
        help="approved versions are copied into it; default: registry.production_model, if --model is the default",
    )
    deciding = argparse.ArgumentParser(add_help=False)
    deciding.add_argument(
        "--reviewer", metavar="NAME", help="who decides; default: MLFLOW_TRACKING_USERNAME, else the login name"
    )
    why = "why; goes on record"

    def action(name: str, about: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=about, description=about, parents=[common, *parents])
        made.set_defaults(action=name)
        return made

    listed = action("list", "Challenger, champion and all other versions side by side.")
    listed.add_argument("--json", action="store_true", help="for programs")
    shown = action("show", "One version: its card, the gate's checks, decisions, links to runs and pictures.")
    shown.add_argument("number", metavar="N", help="number of the version")
    approved = action("approve", "Make a version champion; the one before is kept for rollback.", deciding)
    approved.add_argument("number", metavar="N", help="number of the version")
    approved.add_argument("--reason", required=True, metavar="TEXT", help=why)
    approved.add_argument(
        "--override", action="store_true", help="although the gate did not pass, or the version was rejected"
    )
    rejected = action("reject", "Put on record that a version is not wanted.", deciding)
    rejected.add_argument("number", metavar="N", help="number of the version")
    rejected.add_argument("--reason", required=True, metavar="TEXT", help=why)
    withdrawn = action("withdraw", "Take the champion out of service; then no version is champion.", deciding)
    withdrawn.add_argument("number", metavar="N", help="number of the version")
    withdrawn.add_argument("--reason", required=True, metavar="TEXT", help=why)
    rolled = action("rollback", "Make the previous champion champion again.", deciding)
    rolled.add_argument("--reason", default=NO_REASON, metavar="TEXT", help=why)
    told = action("history", "Who decided what, when and why; and what was changed without a decision.")
    told.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int | None:
    """Do one action; returns 1 where somebody else's decision overtook this one."""
    from pipelines.review import actions

    models = options.model, options.production_model
    if options.action == "list":
        actions.list_versions(*models, options.json)
    elif options.action == "show":
        actions.show(*models, options.number)
    elif options.action == "history":
        actions.show_history(*models, options.json)
    else:
        more = {"override": options.override} if options.action == "approve" else {}
        number = getattr(options, "number", None)
        return actions.decide(options.action, *models, options.reviewer, number, options.reason, **more)
    return None
