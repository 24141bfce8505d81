"""What the commands of `contrastive review` do, and print. Times are UTC."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from components.shared.errors import UserError
from components.shared.evaluation.wording import percent, points, span
from components.shared.params.schema import load_params
from components.shared.registry.version_tags import tagged_gain
from components.shared.registry.versions import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    all_tags,
    open_registry,
    tagged_numbers,
)
from components.shared.repository import in_repository
from pipelines.command_line import print_table, printable
from pipelines.review import decide as deciding
from pipelines.review.commands import DecisionOptions, ModelOptions
from pipelines.review.details import evaluation, host, version_page
from pipelines.review.history import OUTSIDE, Event, history, in_words, notes
from pipelines.review.record import Decision
from pipelines.review.state import ReviewedModels, State, passed_gate, read


def list_versions(models: ModelOptions, last: int, as_json: bool) -> None:
    """Print the last versions, and those that aliases and the line of champions name, side by side."""
    state = read(find_models(models), last)
    if as_json:
        print(json.dumps(_state_json(state), indent=2, ensure_ascii=False))
        return
    _print_heading(state)
    rows = [_row(state, number) for number in _ordered(state)]
    if rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    if state.older:
        print(f"\nolder ones: contrastive review list --last {10 * last}")
    _print_notes(state)
    if state.challenger in state.versions:
        print(f"\nnext        contrastive review show {state.challenger}")


def show(models: ModelOptions, number: str) -> None:
    """Print one version: where it stands, its card, the gate's checks, the decisions, and where its report is."""
    state = read(find_models(models))
    version = state.version(number)
    _print_heading(state)
    for label, value in {**_row(state, number), "gain": tagged_gain(version.tags) or "-"}.items():
        _say(label, value)
    for label, value in _about_gate(all_tags(version.tags)).items():
        _say(label, value)
    page = host()
    if page is not None:
        _say("page", version_page(page, state.models.model, number))
    try:
        checks, report = evaluation(version)
        _say("report", report)
        print("\nchecks of the gate")
        for check in checks:
            _say(f"  {check.name}", f"{'passed' if check.passed else 'NOT PASSED':12}{check.why}")
    except UserError as error:
        _say("report", f"not known, nor are the checks: {error}")
    print("\ncard")
    for line in (version.description or "the version has no description").splitlines():
        print(f"  {printable(line)}".rstrip())
    print("\ndecisions")
    _print_events([event for event in history(state) if event.decision and event.decision.version == number])
    _print_notes(state)


def decide(action: str, by: DecisionOptions, number: str | None, reason: str, **options: bool) -> int:
    """Carry out a decision and print what came of it; returns 1 where somebody else's overtook it.

    Args:
        action: `approve`, `reject`, `withdraw` or `rollback`.
        by: which models are under review, and who decides.
        number: of the version; None for a rollback.
        reason: goes on record.
        options: of the action.

    Raises:
        UserError: what was asked for can't be done.
    """
    about = [] if number is None else [number]
    who = deciding.reviewer(by.reviewer)
    outcome = getattr(deciding, action)(find_models(by), *about, reason, who, **options)
    out = sys.stderr if outcome.overtaken else sys.stdout
    print(printable(outcome.done), file=out)
    mine = outcome.decision
    if mine is not None:
        _say("on record", f"{_who(mine)}: {mine.reason}", out)
        if mine.override:
            _say("overridden", mine.override, out)
    for rival in [] if outcome.overtaken else outcome.rivals:
        _say("also", f"at the same moment {rival.by} {in_words(outcome.state, rival)}: {rival.reason}", out)
    for note in outcome.notes:
        _say("note", note, out)
    if outcome.overtaken:
        _say("next", "look at both (`contrastive review list`), talk, and decide again if need be", out)
    return int(outcome.overtaken)


def show_history(models: ModelOptions, as_json: bool) -> None:
    """Print the decisions, oldest first."""
    state = read(find_models(models))
    if as_json:
        print(json.dumps([_event_json(event) for event in history(state)], indent=2, ensure_ascii=False))
        return
    _print_heading(state)
    _print_events(history(state))
    _print_notes(state)


def find_models(given: ModelOptions) -> ReviewedModels:
    """The models under review, in a registry that is there.

    Raises:
        UserError: a name is not allowed, none is known, or the registry does not answer.
    """
    model, production, signed = given.model, given.production_model, False
    try:
        path = in_repository("params.yaml")
    except UserError:
        if model is None:
            raise
        path = None
    if path is not None and (model is None or path.exists()):
        registry = load_params(path, "register").registry
        signed = registry.require_signature
        if model in (None, registry.model_name):
            model, production = registry.model_name, production or registry.production_model
    for option, name in (("--model", model), ("--production-model", production)):
        if name is not None and (not name.strip() or set(name) & set("'\"/:")):
            raise UserError(f"{option} = {name!r}: must be the name of a registered model, without quotes, / and :")
    if model == production:
        raise UserError(f"--production-model = {production}: is --model too; name another model, or leave it out")
    open_registry(str(model))
    return ReviewedModels(str(model), production, signed)


def _state_json(state: State) -> dict[str, Any]:
    return {
        "model": state.models.model,
        "production_model": state.models.production,
        "champion": state.origin_of(state.champion),
        "previous_champion": state.origin_of(state.previous),
        "challenger": state.challenger,
        "production_champion": state.champion if state.models.production else None,
        "versions": [_version_json(state, number) for number in _ordered(state)],
        "notes": notes(state),
    }


def _version_json(state: State, number: str) -> dict[str, Any]:
    version, decision = state.versions[number], state.record.latest.get(number)
    low, high = _numbers(state, number, "gain_interval", 2)
    accuracy_low, accuracy_high = _numbers(state, number, "test_accuracy_interval", 2)
    return {
        "version": number,
        "status": state.status(number),
        "verdict": version.tags.get("verdict"),
        "blessed": passed_gate(version),
        "weaker": version.tags.get("weaker"),
        "options_changed": all_tags(version.tags).get("options_changed") == "true",
        "look": _numbers(state, number, "look")[0],
        "override": decision.override if decision else None,
        "accuracy": _numbers(state, number, "test_accuracy")[0],
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "gain": _numbers(state, number, "gain")[0],
        "gain_low": low,
        "gain_high": high,
        "confidence": _numbers(state, number, "confidence")[0],
        "registered": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(),
        "aliases": sorted(alias for alias, at in state.aliases.items() if at == number),
        "production_version": state.copy_of(number) if state.models.production else None,
        "decision": decision.model_dump(exclude_none=True) if decision else None,
    }


def _event_json(event: Event) -> dict[str, Any]:
    decision = event.decision
    return {
        **{key: getattr(decision, key, None) for key in ("at", "by", "account", "version", "override")},
        "action": decision.action if decision else "outside",
        "what": event.what,
        "why": decision.reason if decision else OUTSIDE,
    }


def _numbers(state: State, number: str, tag: str, count: int = 1) -> Sequence[float | None]:
    """The numbers in a version's tag; None for each where it holds anything else."""
    found = tagged_numbers(state.versions[number].tags, tag)
    return found if len(found) == count else [None] * count


def _ordered(state: State) -> list[str]:
    first = {CHALLENGER: 0, CHAMPION: 1, PREVIOUS: 2}
    return sorted(state.versions, key=lambda number: (first.get(state.status(number), 3), -int(number)))


def _row(state: State, number: str) -> dict[str, str]:
    """What a person reads of a version first: heading → text."""
    found, decision = _version_json(state, number), state.record.latest.get(number)
    accuracy, gain, low, high = (found[key] for key in ("accuracy", "gain", "gain_low", "gain_high"))
    interval = "" if low is None else f" ({span((low, high), '+')})"
    own_low, own_high = (found[key] for key in ("accuracy_low", "accuracy_high"))
    own_interval = "" if own_low is None else f" ({span((own_low, own_high))})"
    passed = "passed, weakened" if found["weaker"] else "passed"
    row = {
        "version": number,
        "status": found["status"],
        "gate": passed if found["blessed"] else "overridden" if found["override"] else "not passed",
        "accuracy": "-" if accuracy is None else f"{percent(accuracy)}{own_interval}",
        "gain": "-" if gain is None else f"{points(gain, '+')}{interval}",
        "decided": printable(f"{decision.at[:10]} {decision.by}") if decision else "-",
    }
    if state.models.production is not None:
        row["production"] = state.copy_of(number) or "-"
    return row


def _about_gate(tags: Mapping[str, str]) -> dict[str, str]:
    """What stands behind the gate's verdict: heading → text."""
    said = {"look": tags.get("look"), "replicates": tags.get("replicates"), "weakened": tags.get("weaker")}
    if tags.get("options_changed") == "true":
        said["note"] = "the gate's options were changed after the test images were seen"
    return {label: text for label, text in said.items() if text}


def _print_heading(state: State) -> None:
    where = f" at {host()}" if host() else ""
    production = f", production model {state.models.production}" if state.models.production else ""
    print(f"{state.models.model}{production}{where} (times are UTC)\n")


def _print_events(events: Sequence[Event]) -> None:
    if not events:
        print("  none yet")
    for event in events:
        decision = event.decision
        print(f"  {printable(_who(decision)) if decision else 'time not known'}")
        print(f"    {printable(event.what)}")
        if decision and decision.override:
            print(f"    although {printable(decision.override)}")
        print(f"    why: {printable(decision.reason)}" if decision else f"    {OUTSIDE}")


def _print_notes(state: State) -> None:
    found = notes(state)
    if found:
        print()
    for note in found:
        _say("note", note)


def _say(label: str, text: str, file: Any = None) -> None:
    print(f"{label:12}{printable(text)}", file=file)


def _who(decision: Decision) -> str:
    account = f" (account {decision.account})" if decision.account else ""
    return f"{decision.by}{account}, {decision.at[:19].replace('T', ' ')} UTC"
