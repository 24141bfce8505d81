"""What the review prints: plain text as wide as the terminal, and JSON for programs. Times are UTC."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from components.shared.registry.versions import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.command_line import printable
from pipelines.review.decide import Outcome
from pipelines.review.details import Details, host, version_page
from pipelines.review.history import OUTSIDE, Event, history, notes
from pipelines.review.record import Decision
from pipelines.review.state import ModelVersion, State

_COLUMNS = ("version", "status", "gate", "accuracy", "gain over baseline", "production", "registered", "decided")
# what a narrow terminal does without, first one first
_OPTIONAL = ("registered", "decided", "production")
_TO_THE_RIGHT = ("version", "accuracy", "production")


def overview(state: State) -> list[str]:
    """The table of all versions, what is odd about them, and what can be done."""
    rows = [_row(state, state.versions[number], number) for number in _ordered(state)]
    if state.models.production is not None:
        strays = [number for number in state.champion_versions if state.origin_of(number) not in state.versions]
        rows += [_row(state, state.champion_versions[number], None) for number in strays]
    table = _table(rows) if rows else [f"{state.models.model} has no versions yet; run the pipeline"]
    return [_heading(state), "", *table, *_notes(notes(state)), *_next(state)]


def version(state: State, number: str, more: Details) -> list[str]:
    """All about one version."""
    found = state.versions[number]
    lines = [f"{state.models.model} version {number}: {state.status(number)}", *filter(None, [more.page]), ""]
    for label, value in _facts(state, found):
        lines += _wrapped(value, f"{label:12}")
    lines += ["", "checks of the gate"]
    lines += _wrapped(f"not known: {more.unknown}", "  ") if more.unknown else []
    for check in more.checks:
        lines += _wrapped(check.why, f"  {check.name:10} {'passed' if check.passed else 'NOT PASSED':12}")
    lines += ["", "card", *_card(found.description), "", "decisions"]
    decided = [event for event in history(state) if event.decision and event.decision.version == number]
    lines += _events(decided) if decided else ["  none yet"]
    lines += _links("runs", more.runs) + _links("report and pictures", more.files)
    return lines + _notes(notes(state)) + _next(state, number)


def events(state: State) -> list[str]:
    """The history, oldest first."""
    found = history(state)
    decided = _events(found) if found else ["nothing was decided yet"]
    return [_heading(state), "", *decided, *_notes(notes(state))]


def outcome(result: Outcome) -> list[str]:
    """What a decision came to."""
    state, mine, lines = result.state, result.decision, _wrapped(result.done)
    if mine is None:
        return lines
    lines += _wrapped(f"{_who(mine)}, {_time(mine.at)}: {mine.reason}", "on record   ")
    lines += _wrapped(mine.override, "overridden  ") if mine.override else []
    rivals = set() if result.overtaken else {rival.id for rival in result.rivals}
    for event in history(state):
        if event.decision and event.decision.id in rivals:
            by, why = event.decision.by, event.decision.reason
            lines += _wrapped(f"at the same moment {by} {event.what}: {why}", "also        ")
    for note in result.notes:
        lines += _wrapped(note, "note        ")
    if result.overtaken:
        return lines + _wrapped(
            "look at both (`contrastive review list`), talk, and decide again if need be", "next        "
        )
    if mine.action == "reject" and state.is_champion(mine.version):
        lines += _wrapped(f"version {mine.version} is champion all the same; `withdraw` it", "note        ")
    if mine.champion is not None:
        page = version_page(state.models.champion_model, mine.champion)
    else:
        page = version_page(state.models.model, mine.version or "")
    return lines + ([f"page        {page}"] if page else [])


def as_json(state: State) -> dict[str, Any]:
    """What `list --json` prints."""
    return {
        "model": state.models.model,
        "production_model": state.models.production,
        "champion": state.origin_of(state.champion),
        "previous_champion": state.origin_of(state.previous),
        "challenger": state.challenger,
        "production_champion": state.champion if state.models.production else None,
        "versions": [_version_json(state, state.versions[number]) for number in _ordered(state)],
        "notes": notes(state),
    }


def history_as_json(state: State) -> list[dict[str, Any]]:
    """What `history --json` prints."""
    return [_event_json(event) for event in history(state)]


def _event_json(event: Event) -> dict[str, Any]:
    keys = ("at", "by", "account", "action", "version", "override")
    decision = event.decision
    return {
        **{key: getattr(decision, key, None) for key in keys},
        "action": decision.action if decision else "outside",
        "what": event.what,
        "why": decision.reason if decision else OUTSIDE,
    }


def _version_json(state: State, found: ModelVersion) -> dict[str, Any]:
    decision = state.record.latest.get(found.number)
    low, high = found.interval or (None, None)
    return {
        "version": found.number,
        "status": state.status(found.number),
        "verdict": found.tags.get("verdict"),
        "blessed": found.blessed,
        "override": decision.override if decision else None,
        "accuracy": found.number_in("test_accuracy"),
        "gain": found.number_in("gain"),
        "gain_low": low,
        "gain_high": high,
        "confidence": found.number_in("confidence"),
        "registered": datetime.fromtimestamp(found.created / 1000, UTC).isoformat(),
        "aliases": sorted(alias for alias, number in state.aliases.items() if number == found.number),
        "production_version": state.copy_of(found.number) if state.models.production else None,
        "decision": decision.model_dump(exclude_none=True) if decision else None,
    }


def _ordered(state: State) -> list[str]:
    first = {CHALLENGER: 0, CHAMPION: 1, PREVIOUS: 2}
    return sorted(state.versions, key=lambda number: (first.get(state.status(number), 3), -int(number)))


def _row(state: State, found: ModelVersion, number: str | None) -> dict[str, str]:
    """A row of the table; `number` is None for a production version that is no copy of what is listed."""
    decision = state.record.latest.get(number) if number else None
    gate = "passed" if found.blessed else "not passed"
    if number and not found.blessed and decision and decision.override:
        gate = "overridden"
    row = {
        "version": number or "-",
        "gate": gate,
        "accuracy": _percent(found),
        "gain over baseline": _gain(found),
        "registered": _minute(found.created),
        "decided": f"{decision.at[:10]} {decision.by}" if decision else "-",
    }
    if number is None:
        status = {state.champion: CHAMPION, state.previous: PREVIOUS}.get(found.number, "approved-before")
        return {**row, "status": status, "production": found.number}
    production = {"production": state.copy_of(number) or "-"} if state.models.production else {}
    return {**row, "status": state.status(number), **production}


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    sizes = {
        name: max(len(name), *(len(printable(row[name])) for row in rows)) for name in _COLUMNS if name in rows[0]
    }
    for name in _OPTIONAL:
        if sum(sizes.values()) + 2 * (len(sizes) - 1) > _width():
            sizes.pop(name, None)

    def line(row: Mapping[str, str]) -> str:
        cells = {name: printable(row[name]) for name in sizes}
        return "  ".join(
            cell.rjust(sizes[name]) if name in _TO_THE_RIGHT else cell.ljust(sizes[name])
            for name, cell in cells.items()
        ).rstrip()

    return [line({name: name for name in sizes}), *(line(row) for row in rows)]


def _heading(state: State) -> str:
    where = f" at {host()}" if host() else ""
    production = f", production model {state.models.production}" if state.models.production else ""
    return f"{state.models.model}{production}{where} (times are UTC)"


def _facts(state: State, found: ModelVersion) -> Iterable[tuple[str, str]]:
    tags, decision = found.tags, state.record.latest.get(found.number)
    gate = "passed" if found.blessed else "not passed"
    gate += "" if tags.get("verdict") else " (the version has no tag verdict)"
    gate += f"; overridden by {decision.by}" if decision and decision.override else ""
    yield "registered", f"{_minute(found.created)} UTC"
    yield "gate", gate
    if "test_accuracy" in tags:
        yield "accuracy", f"{_percent(found)} of the test images, mean over seeds"
    if found.gain_in_words:
        yield "gain", f"{found.gain_in_words} over the baseline"
    champion = state.champion_versions.get(state.champion or "")
    if champion is not None and not state.is_champion(found.number):
        same = tags.get("test_digest") is not None and champion.tags.get("test_digest") == tags.get("test_digest")
        on = "the same test images" if same else "other test images, so the numbers do not compare"
        yield "champion", f"{state.name_of(state.champion)}: {_percent(champion)} of {on}"
    if state.models.production is not None:
        copy = state.copy_of(found.number)
        yield "production", f"{state.models.production} version {copy}" if copy else "no copy yet"
    made = [tags[key] for key in ("encoder", "method", "winner", "dataset") if tags.get(key)]
    if made:
        yield "made of", ", ".join(made)
    if tags.get("git_commit"):
        yield "commit", tags["git_commit"]


def _card(description: str) -> list[str]:
    lines: list[str] = []
    program = False
    for line in (description.strip() or "the version has no description").splitlines():
        fence = line.lstrip().startswith("```")
        program ^= fence
        # programs, tables and headings keep their lines
        whole = program or fence or line.lstrip().startswith(("|", "#"))
        lines += [f"  {printable(line)}".rstrip()] if whole else _wrapped(line, "  ")
    return lines


def _events(found: Iterable[Event]) -> list[str]:
    lines = []
    for event in found:
        decision = event.decision
        lines += _wrapped(f"{_time(decision.at)}  {_who(decision)}" if decision else "time not known", "  ")
        lines += _wrapped(event.what, "    ")
        lines += _wrapped(f"although {decision.override}", "    ") if decision and decision.override else []
        lines += _wrapped(f"why: {decision.reason}" if decision else OUTSIDE, "    ")
    return lines


def _who(decision: Decision) -> str:
    return f"{decision.by} (account {decision.account})" if decision.account else decision.by


def _links(title: str, links: Mapping[str, str]) -> list[str]:
    if not links:
        return []
    size = max(map(len, links))
    return ["", title, *(f"  {printable(name):{size}}  {printable(link)}" for name, link in links.items())]


def _next(state: State, number: str | None = None) -> list[str]:
    show = number is None
    number = number or state.challenger
    if number is None or number not in state.versions or state.is_champion(number) or state.is_rejected(number):
        return []
    override = "" if state.versions[number].blessed else " --override"
    commands = [f"show {number}"] * show + [f"approve {number} --reason …{override}", f"reject {number} --reason …"]
    return ["", "next", *(f"  contrastive review {command}" for command in commands)]


def _notes(sentences: Iterable[str]) -> list[str]:
    lines = [line for sentence in sentences for line in _wrapped(sentence, "note        ")]
    return ["", *lines] if lines else []


def _wrapped(text: str, label: str = "") -> list[str]:
    """A text in lines as wide as the terminal, under each other behind a label."""
    after = " " * len(label)
    return textwrap.wrap(
        printable(text),
        _width(),
        initial_indent=label,
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label.rstrip()]


def _width() -> int:
    return max(60, shutil.get_terminal_size((120, 24)).columns)


def _minute(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _time(at: str) -> str:
    """A time of the record, to the second; as it is, where it was changed to something else."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z", at)
    return f"{match[1]} {match[2]} UTC" if match else at


def _percent(found: ModelVersion) -> str:
    accuracy = found.number_in("test_accuracy")
    return "-" if accuracy is None else f"{100 * accuracy:.1f} %"


def _gain(found: ModelVersion) -> str:
    gain, interval = found.number_in("gain"), found.interval
    if gain is None:
        return "-"
    return f"{100 * gain:+.1f}" + (f" ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})" if interval else "")


def announcement(model: str, found: ModelVersion, page: str) -> str:
    """A new challenger in one line: verdict, gain, where to look, and the command that shows it."""
    verdict = found.tags.get("verdict", "verdict unknown, not registered by the pipeline")
    gain = f", gain {found.gain_in_words}" if found.gain_in_words else ""
    command = f"contrastive review show {found.number} --model {shlex.quote(model)}"
    said = f"{model} version {found.number} waits for review: {verdict}{gain}"
    return printable(f"{said} | {version_page(model, found.number, page)} | {command}")
