"""What the commands of `contrastive review` do, and print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.schema import load_params
from components.shared.registry.versions import open_registry
from components.shared.repository import find_root, in_repository
from pipelines.review import decide as deciding
from pipelines.review import text
from pipelines.review.details import details
from pipelines.review.state import ReviewedModels, read


def list_versions(model: str | None, production: str | None, as_json: bool) -> None:
    """Print all versions side by side."""
    state = read(_models(model, production))
    if as_json:
        print(json.dumps(text.as_json(state), indent=2, ensure_ascii=False))
    else:
        print("\n".join(text.overview(state)))


def show(model: str | None, production: str | None, number: str) -> None:
    """Print one version."""
    state, number = read(_models(model, production)), _checked(number)
    print("\n".join(text.version(state, number, details(state, number))))


def decide(
    action: str,
    model: str | None,
    production: str | None,
    reviewer: str | None,
    number: str | None,
    reason: str,
    **options: bool,
) -> int:
    """Carry out a decision and print what came of it; returns 1 where somebody else's overtook it.

    Args:
        action: `approve`, `reject`, `withdraw` or `rollback`.
        model, production: names of the registered models; None takes those of params.yaml.
        reviewer: who decides; None is who is logged in.
        number: of the version; None for a rollback.
        reason: goes on record.
        options: of the action.

    Raises:
        UserError: what was asked for can't be done.
    """
    models = _models(model, production)
    who = deciding.reviewer(reviewer)
    about = [] if number is None else [_checked(number)]
    outcome = getattr(deciding, action)(models, *about, reason, who, **options)
    print("\n".join(text.outcome(outcome)), file=sys.stderr if outcome.overtaken else sys.stdout)
    return 1 if outcome.overtaken else 0


def show_history(model: str | None, production: str | None, as_json: bool) -> None:
    """Print the decisions."""
    state = read(_models(model, production))
    if as_json:
        print(json.dumps(text.history_as_json(state), indent=2, ensure_ascii=False))
    else:
        print("\n".join(text.events(state)))


def _models(model: str | None, production: str | None) -> ReviewedModels:
    """The models under review, in a registry that is there.

    Raises:
        UserError: a name is not allowed, none is known, or the registry does not answer.
    """
    path = _params() if model is not None else in_repository("params.yaml")
    if path is not None:
        registry = load_params(path, "register").registry
        if model in (None, registry.model_name):
            model, production = registry.model_name, production or registry.production_model
    for option, name in (("--model", model), ("--production-model", production)):
        if name is not None and (not name.strip() or set(name) & set("'\"/:")):
            raise UserError(f"{option} = {name!r}: must be the name of a registered model, without quotes, / and :")
    if model == production:
        raise UserError(f"--production-model = {production}: is --model too; name another model, or leave it out")
    open_registry(str(model))
    return ReviewedModels(str(model), production)


def _params() -> Path | None:
    """The repository's params.yaml, where there is one."""
    try:
        path = find_root() / "params.yaml"
    except UserError:
        return None
    return path if path.exists() else None


def _checked(number: str) -> str:
    plain = number.strip().removeprefix("v")
    if not plain.isascii() or not plain.isdigit() or int(plain) < 1:
        raise UserError(f"N = {number!r}: must be the number of a version, such as 3; `review list` shows them")
    return str(int(plain))
