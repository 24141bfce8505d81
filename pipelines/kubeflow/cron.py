"""Times in the familiar five fields of crontab(5), checked and turned into the six that Kubeflow Pipelines reads.

Kubeflow's scheduler parses with github.com/robfig/cron 1.2.0: seconds first, day of the week 0–6 without 7, no step
after a single number's end. Where the two read the same text differently, lists of numbers are written, which both
read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from components.shared.errors import UserError

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
# leap days come every four years, but 2096 and 2104 are eight apart
_YEARS = 9


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        text = f"{self.low}–{self.high}"
        return f"{text} or {self.names[0]}–{self.names[-1]}" if self.names else text

    def number(self, text: str, whole: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + (self.low if self.names is _MONTHS else 0)
        value = int(text) if re.fullmatch("[0-9]{1,4}", text) else None
        if value is None or not self.low <= value <= self.high:
            raise UserError(f"cron: {self.name} = {whole}: {text!r} must be {self.allowed}")
        return value


FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """When something happens, in UTC, to the minute.

    `minutes`, `hours`, `days` (of the month), `months` and `weekdays` (0–6, 0 is Sunday) are what each field
    allows; `every_day` and `every_weekday` say that the field was `*`. As in crontab(5): with both days restricted,
    either one is enough.
    """

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    every_day: bool
    every_weekday: bool

    def kubeflow(self) -> str:
        """The same times as Kubeflow's six fields, seconds first."""
        shown = (
            _shown(self.minutes, len(self.minutes) == 60),
            _shown(self.hours, len(self.hours) == 24),
            _shown(self.days, self.every_day),
            _shown(self.months, len(self.months) == 12),
            _shown(self.weekdays, self.every_weekday),
        )
        return " ".join(["0", *shown])

    def after(self, moment: datetime) -> Iterator[datetime]:
        """The times after a moment, in order, in UTC; ends when there is none in the next years."""
        start = moment.astimezone(UTC)
        day, last = start.date(), start.year + _YEARS
        while day.year <= last:
            if self._falls_on(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        time = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                        if time > start:
                            yield time
                            last = time.year + _YEARS
            day += timedelta(days=1)

    def next_times(self, count: int, moment: datetime | None = None) -> list[datetime]:
        """The next so many times after a moment, which is now if not given."""
        times = self.after(moment or datetime.now(UTC))
        return [time for time, _ in zip(times, range(count), strict=False)]

    def _falls_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        on_day, on_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        if self.every_day or self.every_weekday:
            return on_day and on_weekday
        return on_day or on_weekday


def parse_cron(text: str) -> Cron:
    """Check a time of five fields.

    Args:
        text: minute, hour, day of month, month, day of week: numbers, names, `*`, ranges `1-5`, steps `*/15` and
            `8-18/2`, lists `1,15`; or a nickname such as @daily.

    Raises:
        UserError: it is not one, names the field and what is allowed there; or the time never comes.
    """
    fields = ["*" if field == "*/1" else field for field in NICKNAMES.get(text.strip().lower(), text).split()]
    if len(fields) != 5:
        raise UserError(
            f"cron = {text!r}: must have 5 fields (minute, hour, day of month, month, day of week), such as "
            f"'0 3 * * *', or be one of {', '.join(NICKNAMES)}"
        )
    minutes, hours, days, months, weekdays = (_values(*pair) for pair in zip(FIELDS, fields, strict=True))
    of_month, of_week = fields[2], fields[4]
    if "*" not in (of_month, of_week) and "*/" in f"{of_month} {of_week}":
        # crontab(5) wants both days to fit here, Kubeflow's parser either or both by its version
        raise UserError(
            f"cron = {text!r}: programs disagree on a step after * in one of the two days when the other is given "
            "too; write the days as a list"
        )
    cron = Cron(
        " ".join(fields),
        minutes,
        hours,
        days,
        months,
        frozenset(day % 7 for day in weekdays),
        every_day=of_month == "*",
        every_weekday=of_week == "*",
    )
    if not cron.next_times(1):
        raise UserError(f"cron = {text!r}: there is no such day, so it never runs; choose another day of month")
    return cron


def parse_kubeflow(text: str) -> Cron | None:
    """Kubeflow's six fields as times, or None if they are not to the minute or can't be said in five fields."""
    fields = text.replace("?", "*").split()
    if len(fields) != 6 or fields[0] != "0":
        return None
    try:
        return parse_cron(" ".join(fields[1:]))
    except UserError:
        return None


def _values(field: _Field, text: str) -> frozenset[int]:
    parts = text.split(",")
    if len(parts) > 1 and "*" in parts:
        raise UserError(f"cron: {field.name} = {text}: * is all there is; write it alone")
    return frozenset(value for part in parts for value in _range(field, part, text))


def _range(field: _Field, part: str, whole: str) -> Sequence[int]:
    span, slash, step_text = part.partition("/")
    start, dash, end = span.partition("-")
    if span == "*":
        # 7 is a second name of Sunday, and no eighth day to step to
        low, high = field.low, 6 if field.names is _DAYS else field.high
    else:
        low = field.number(start, whole)
        high = field.number(end, whole) if dash else low
        if low > 0 and field.names is _DAYS and end.lower() == "sun":
            high = 7  # fri-sun: as the end of a range it is the week's last day
    if low > high:
        raise UserError(f"cron: {field.name} = {whole}: {part!r} ends before it begins; write two ranges")
    if not slash:
        return range(low, high + 1)
    if span != "*" and not dash:
        raise UserError(
            f"cron: {field.name} = {whole}: a step needs a range, such as {start}-{field.high}/{step_text}"
        )
    if not re.fullmatch("[0-9]{1,4}", step_text) or int(step_text) < 1:
        raise UserError(
            f"cron: {field.name} = {whole}: the step {step_text!r} must be a whole number of at least 1"
        )
    return range(low, high + 1, int(step_text))


def _shown(values: frozenset[int], every: bool) -> str:
    """A list of numbers and ranges; `*` only where the field was that, for it changes how the days are combined."""
    if every:
        return "*"
    runs: list[tuple[int, int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
