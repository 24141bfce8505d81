"""What the review prints: plain text as wide as the terminal, and JSON for programs. Times are UTC."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from components.shared.evaluation.gate import Blessing
from components.shared.registry.versions import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.inference.image_files import shown
from pipelines.review.decide import Outcome
from pipelines.review.details import Details, host, version_page
from pipelines.review.history import Event, history, notes
from pipelines.review.log import OVERRIDE, Decision
from pipelines.review.state import Entry, State

# where the output is no terminal
_WIDTH = 120
_FIRST = (CHALLENGER, CHAMPION, PREVIOUS)
# what a narrow terminal does without, first one first
_DROPPED = ("registered", "decided", "production")
_TO_THE_RIGHT = ("version", "accuracy", "production")


def width() -> int:
    """Columns of the terminal."""
    return max(60, shutil.get_terminal_size((_WIDTH, 24)).columns)


def overview(state: State) -> list[str]:
    """The table of all versions, what is odd about them, and what can be done."""
    rows = [_row(state, number) for number in _ordered(state)]
    rows += [_stray(state, number) for number in _strays(state)]
    lines = [_heading(state), ""]
    lines += _table(rows) if rows else [f"{state.place.model} has no versions yet; run the pipeline"]
    return [*lines, *_section("note", notes(state)), *_next(state)]


def version(state: State, number: str, more: Details) -> list[str]:
    """All about one version."""
    entry = state.entries[number]
    lines = [f"{state.place.model} version {number}: {state.status(number)}"]
    if more.page:
        lines.append(more.page)
    facts = [("registered", _minute(entry.created)), *_facts(state, entry)]
    lines += ["", *(line for label, value in facts for line in _wrapped(label, value))]
    lines += ["", "checks of the gate", *_checks(more.blessing)]
    lines += ["", "card", *_card(entry.description)]
    decided = [event for event in history(state) if event.decision and event.decision.version == number]
    lines += ["", "decisions", *(_events(decided) if decided else ["  none yet"])]
    lines += _links("runs", more.runs) + _links("report and pictures", more.files)
    return lines + _section("note", notes(state)) + _next(state, number)


def events(state: State, found: Sequence[Event], odd: Sequence[str]) -> list[str]:
    """The history, oldest first."""
    lines = [_heading(state), "", *(_events(found) if found else ["nothing was decided yet"])]
    return lines + _section("note", odd)


def outcome(result: Outcome) -> list[str]:
    """What a decision came to."""
    mine, lines = result.decision, _wrapped("", result.done)
    if mine is not None:
        by = f"{mine.by} (account {mine.account})" if mine.account else mine.by
        lines += _wrapped("on record", f"{by}, {_time(mine.at)}: {mine.reason}")
        lines += _wrapped("overridden", mine.override) if mine.override else []
    told = {} if result.overtaken else {rival.id: rival for rival in result.rivals}
    for event in history(result.state):
        if event.decision is not None and event.decision.id in told:
            lines += _wrapped("also", f"at the same moment {event.by} {event.what}: {event.why}")
    for note in result.notes:
        lines += _wrapped("note", note)
    if result.overtaken:
        lines += _wrapped(
            "next", "look at both (`python -m pipelines review list`), talk, and decide again if need be"
        )
    elif mine is not None and mine.action == "reject" and result.state.is_champion(mine.version or ""):
        lines += _wrapped(
            "note", f"version {mine.version} is champion all the same; `rollback` takes it out of use"
        )
    elif mine is not None and (page := _page(result.state, mine)):
        lines += _wrapped("page", page)
    return [shown(line) for line in lines]


def as_json(state: State) -> dict[str, Any]:
    """What `list --json` prints."""
    previous = state.previous()
    return {
        "model": state.place.model,
        "production_model": state.place.production,
        "champion": state.origin_of(state.champion) if state.champion else None,
        "previous_champion": state.origin_of(previous) if previous else None,
        "challenger": state.challenger,
        "production_champion": state.champion if state.place.production else None,
        "versions": [_version_json(state, state.entries[number]) for number in _ordered(state)],
        "notes": notes(state),
    }


def event_as_json(event: Event) -> dict[str, Any]:
    """What `history --json` prints of each event."""
    decision = event.decision
    return {
        "at": event.at,
        "by": event.by,
        "account": event.account,
        "action": decision.action if decision else "outside",
        "version": decision.version if decision else None,
        "what": event.what,
        "why": event.why,
        "override": event.override,
    }


def _version_json(state: State, entry: Entry) -> dict[str, Any]:
    decision = state.log.about(entry.number)
    low, high = _interval(entry)
    return {
        "version": entry.number,
        "status": state.status(entry.number),
        "verdict": entry.tags.get("verdict"),
        "blessed": entry.blessed,
        "override": decision.override if decision else None,
        "accuracy": _float(entry.tags.get("test_accuracy")),
        "gain": _float(entry.tags.get("gain")),
        "gain_low": low,
        "gain_high": high,
        "confidence": _float(entry.tags.get("confidence")),
        "registered": datetime.fromtimestamp(entry.created / 1000, UTC).isoformat(),
        "aliases": sorted(alias for alias, number in state.aliases.items() if number == entry.number),
        "production_version": state.copy_of(entry.number) if state.place.production else None,
        "decision": decision.model_dump(exclude_none=True) if decision else None,
    }


def _ordered(state: State) -> list[str]:
    def place(number: str) -> tuple[int, int]:
        status = state.status(number)
        return (_FIRST.index(status) if status in _FIRST else len(_FIRST), -int(number))

    return sorted(state.entries, key=place)


def _strays(state: State) -> list[str]:
    """Versions of the production model that are no copies of what is listed."""
    if state.place.production is None:
        return []
    return [number for number in state.crowned_entries if state.origin_of(number) not in state.entries]


def _row(state: State, number: str) -> dict[str, str]:
    entry, decision = state.entries[number], state.log.about(number)
    row = {
        "version": number,
        "status": state.status(number),
        "gate": _gate(state, entry),
        "accuracy": _percent(entry.tags.get("test_accuracy")),
        "gain over baseline": _gain(entry),
        "registered": _minute(entry.created).removesuffix(" UTC"),
        "decided": f"{decision.at[:10]} {decision.by}" if decision else "-",
    }
    if state.place.production is not None:
        row["production"] = state.copy_of(number) or "-"
    return row


def _stray(state: State, number: str) -> dict[str, str]:
    entry = state.crowned_entries[number]
    status = {state.champion: CHAMPION, state.previous(): PREVIOUS}.get(number, "approved-before")
    return {**_row_of_stray(entry), "status": status, "production": number}


def _row_of_stray(entry: Entry) -> dict[str, str]:
    return {
        "version": "-",
        "gate": "passed" if entry.blessed else "not passed",
        "accuracy": _percent(entry.tags.get("test_accuracy")),
        "gain over baseline": _gain(entry),
        "registered": _minute(entry.created).removesuffix(" UTC"),
        "decided": "-",
    }


def _gate(state: State, entry: Entry) -> str:
    decision = state.log.about(entry.number)
    if not entry.blessed and decision is not None and decision.action != "reject":
        return "overridden" if decision.override or OVERRIDE in entry.tags else "not passed"
    return "passed" if entry.blessed else "not passed"


def _gate_in_words(state: State, entry: Entry) -> str:
    words = "passed" if entry.blessed else "not passed"
    words += "" if entry.tags.get("verdict") else " (the version has no tag verdict)"
    decision = state.log.about(entry.number)
    return words + (f"; overridden by {decision.by}" if decision and decision.override else "")


def _table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    columns = ["version", "status", "gate", "accuracy", "gain over baseline"]
    columns += [name for name in ("production", "registered", "decided") if name in rows[0]]
    sizes = {name: max(len(name), *(len(shown(row[name])) for row in rows)) for name in columns}
    for name in _DROPPED:
        if sum(sizes.values()) + 2 * (len(sizes) - 1) > width():
            sizes.pop(name, None)

    def line(row: Mapping[str, str]) -> str:
        cells = (
            shown(row[name]).rjust(size) if name in _TO_THE_RIGHT else shown(row[name]).ljust(size)
            for name, size in sizes.items()
        )
        return "  ".join(cells).rstrip()

    return [line({name: name for name in sizes}), *(line(row) for row in rows)]


def _heading(state: State) -> str:
    where = f" at {host()}" if host() else ""
    production = f", production model {state.place.production}" if state.place.production else ""
    return f"{state.place.model}{production}{where} (times are UTC)"


def _facts(state: State, entry: Entry) -> list[tuple[str, str]]:
    tags = entry.tags
    facts = [("gate", _gate_in_words(state, entry))]
    if "test_accuracy" in tags:
        facts.append(("accuracy", f"{_percent(tags['test_accuracy'])} of the test images, mean over seeds"))
    if _gain(entry) != "-":
        facts.append(("gain", _gain_in_words(entry)))
    champion = state.crowned_entries.get(state.champion or "")
    if champion is not None and not state.is_champion(entry.number):
        same = tags.get("test_digest") is not None and champion.tags.get("test_digest") == tags.get("test_digest")
        on = "the same test images" if same else "other test images, so the numbers do not compare"
        facts.append(
            ("champion", f"{state.named(state.champion)}: {_percent(champion.tags.get('test_accuracy'))} of {on}")
        )
    copy = state.copy_of(entry.number)
    if state.place.production is not None:
        facts.append(("production", f"{state.place.production} version {copy}" if copy else "no copy yet"))
    made = [tags[key] for key in ("encoder", "method", "winner", "dataset") if tags.get(key)]
    facts += [("made of", ", ".join(made))] if made else []
    facts += [("commit", tags["git_commit"])] if tags.get("git_commit") else []
    return facts


def _checks(blessing: Blessing | str) -> list[str]:
    if isinstance(blessing, str):
        return _indented(f"not known: {blessing}")
    lines = []
    for check in blessing.checks:
        lines += _wrapped(f"  {check.name:10} {'passed' if check.passed else 'NOT PASSED'}", check.why, 25)
    return lines


def _card(description: str) -> list[str]:
    if not description.strip():
        return ["  the version has no description"]
    lines: list[str] = []
    program = False
    for line in description.strip().splitlines():
        fence = line.lstrip().startswith("```")
        program ^= fence
        # programs, tables and headings keep their lines
        lines += (
            [f"  {shown(line)}"] if program or fence or line.lstrip().startswith(("|", "#")) else _indented(line)
        )
    return [line.rstrip() for line in lines]


def _events(found: Iterable[Event]) -> list[str]:
    lines = []
    for event in found:
        by = f"{event.by} (account {event.account})" if event.account else event.by
        head = f"{_time(event.at)}  {by}" if event.at else "time not known"
        lines += textwrap.wrap(shown(head), width(), initial_indent="  ")
        lines += _indented(event.what, 4)
        lines += _indented(f"although {event.override}", 4) if event.override else []
        lines += _indented(f"why: {event.why}" if event.at else event.why, 4)
    return lines


def _links(title: str, links: Mapping[str, str]) -> list[str]:
    size = max((len(name) for name in links), default=0)
    return ["", title, *(f"  {shown(name):{size}}  {shown(link)}" for name, link in links.items())] if links else []


def _next(state: State, number: str | None = None) -> list[str]:
    shown_already, number = number is not None, number or state.challenger
    if number is None or number not in state.entries or state.is_champion(number) or state.is_rejected(number):
        return []
    command = "python -m pipelines review"
    approve = f"  {command} approve {number} --reason …" + ("" if state.entries[number].blessed else " --override")
    lines = [approve, f"  {command} reject {number} --reason …"]
    return ["", "next", *([] if shown_already else [f"  {command} show {number}"]), *lines]


def _page(state: State, decision: Decision) -> str | None:
    if decision.champion is not None:
        return version_page(state.place.crowned, decision.champion)
    return version_page(state.place.model, decision.version or "")


def _section(label: str, sentences: Sequence[str]) -> list[str]:
    lines = [line for sentence in sentences for line in _wrapped(label, sentence)]
    return ["", *lines] if lines else []


def _wrapped(label: str, value: str, size: int = 12) -> list[str]:
    start = f"{label:{size}}" if label else ""
    return textwrap.wrap(
        shown(value),
        width(),
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [label]


def _indented(value: str, by: int = 2) -> list[str]:
    return textwrap.wrap(
        shown(value),
        width(),
        initial_indent=" " * by,
        subsequent_indent=" " * by,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def _minute(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _time(at: str) -> str:
    """A time of the record, to the second; as it is, where it was changed to something else."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z", at)
    return f"{match[1]} {match[2]} UTC" if match else at


def _float(value: str | None) -> float | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return None


def _percent(value: str | None) -> str:
    number = _float(value)
    return "-" if number is None else f"{100 * number:.1f} %"


def _interval(entry: Entry) -> tuple[float | None, float | None]:
    parts = [_float(part) for part in entry.tags.get("gain_interval", "").split()]
    return (parts[0], parts[1]) if len(parts) == 2 else (None, None)


def _gain_in_words(entry: Entry) -> str:
    (low, high), confidence = _interval(entry), _float(entry.tags.get("confidence"))
    words = f"{100 * (_float(entry.tags.get('gain')) or 0):+.1f} points over the baseline"
    if low is None or high is None:
        return words
    of = f"{100 * confidence:g} % " if confidence else ""
    return f"{words}, {of}interval {100 * low:+.1f} to {100 * high:+.1f}"


def _gain(entry: Entry) -> str:
    gain, (low, high) = _float(entry.tags.get("gain")), _interval(entry)
    if gain is None:
        return "-"
    return f"{100 * gain:+.1f}" + (
        "" if low is None or high is None else f" ({100 * low:+.1f} to {100 * high:+.1f})"
    )
