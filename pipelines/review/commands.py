"""Review registered models: list, show, approve, reject, roll back, and what was decided before.

  python -m pipelines review list
  python -m pipelines review show 3
  python -m pipelines review approve 3 --reason "better on stripes and dots"

The models are those of params.yaml's section `registry`; the registry is MLFLOW_TRACKING_URI. The same can be done
in MLflow's page: the version with the alias `champion` is the champion, whoever set it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.schema import load_params
from components.shared.registry.versions import open_registry
from pipelines.review import decide
from pipelines.review import text as text
from pipelines.review.details import details
from pipelines.review.history import history, notes
from pipelines.review.state import Place, read

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

    def action(name: str, run: object, about: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=about, description=about, parents=[common, *parents])
        made.set_defaults(action=run)
        return made

    listed = action("list", _list, "Challenger, champion and all other versions side by side.")
    listed.add_argument("--json", action="store_true", help="for programs")
    shown = action(
        "show", _show, "One version: its card, the gate's checks, decisions, links to runs and pictures."
    )
    shown.add_argument("number", metavar="N", help="number of the version")
    approved = action(
        "approve", _approve, "Make a version champion; the one before is kept for rollback.", deciding
    )
    approved.add_argument("number", metavar="N", help="number of the version")
    approved.add_argument("--reason", required=True, metavar="TEXT", help=why)
    approved.add_argument(
        "--override", action="store_true", help="although the gate did not pass, or the version was rejected"
    )
    rejected = action("reject", _reject, "Put on record that a version is not wanted.", deciding)
    rejected.add_argument("number", metavar="N", help="number of the version")
    rejected.add_argument("--reason", required=True, metavar="TEXT", help=why)
    rolled = action("rollback", _rollback, "Make the previous champion champion again.", deciding)
    rolled.add_argument("--reason", default=NO_REASON, metavar="TEXT", help=why)
    told = action("history", _history, "Who decided what, when and why; and what was changed without a decision.")
    told.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int | None:
    """Do one action; returns 1 where somebody else's decision overtook this one.

    Raises:
        UserError: what was asked for can't be done.
    """
    place = _place(options.model, options.production_model)
    open_registry(place.model)
    status: int | None = options.action(place, options)
    return status


def _place(model: str | None, production: str | None) -> Place:
    path = Path("params.yaml")
    if model is None or path.exists():
        registry = load_params(path, "register").registry
        if model in (None, registry.model_name):
            model, production = registry.model_name, production or registry.production_model
    for option, name in (("--model", model), ("--production-model", production)):
        if name is not None and (not name.strip() or set(name) & set("'\"/:")):
            raise UserError(f"{option} = {name!r}: must be the name of a registered model, without quotes, / and :")
    if model == production:
        raise UserError(f"--production-model = {production}: is --model too; name another model, or leave it out")
    return Place(str(model), production)


def _list(place: Place, options: argparse.Namespace) -> None:
    state = read(place)
    if options.json:
        print(json.dumps(text.as_json(state), indent=2, ensure_ascii=False))
    else:
        print("\n".join(text.overview(state)))


def _show(place: Place, options: argparse.Namespace) -> None:
    state, number = read(place), _number(options.number)
    print("\n".join(text.version(state, number, details(state, number))))


def _approve(place: Place, options: argparse.Namespace) -> int:
    who = decide.reviewer(options.reviewer)
    return _tell(decide.approve(place, _number(options.number), options.reason, who, options.override))


def _reject(place: Place, options: argparse.Namespace) -> int:
    return _tell(decide.reject(place, _number(options.number), options.reason, decide.reviewer(options.reviewer)))


def _rollback(place: Place, options: argparse.Namespace) -> int:
    return _tell(decide.rollback(place, options.reason, decide.reviewer(options.reviewer)))


def _history(place: Place, options: argparse.Namespace) -> None:
    state = read(place)
    events, found = history(state), notes(state)
    if options.json:
        print(json.dumps([text.event_as_json(event) for event in events], indent=2, ensure_ascii=False))
    else:
        print("\n".join(text.events(state, events, found)))


def _tell(outcome: decide.Outcome) -> int:
    stream = sys.stderr if outcome.overtaken else sys.stdout
    print("\n".join(text.outcome(outcome)), file=stream)
    return 1 if outcome.overtaken else 0


def _number(given: str) -> str:
    number = given.strip().removeprefix("v")
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise UserError(f"N = {given!r}: must be the number of a version, such as 3; `review list` shows them")
    return str(int(number))
