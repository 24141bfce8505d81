"""How Kubeflow's scheduler reads a cron expression: github.com/robfig/cron 1.2.0, transcribed field by field.

Seconds come first and the day of the week may be left out, so that five fields are not the familiar five.
"""

from __future__ import annotations

from datetime import datetime

MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
DAYS = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
BOUNDS = ((0, 59, {}), (0, 59, {}), (0, 23, {}), (1, 31, {}), (1, 12, MONTHS), (0, 6, DAYS))


class RobfigCron:
    """A parsed expression; raises ValueError where the library returns an error."""

    def __init__(self, text: str):
        fields = text.split()
        if not 5 <= len(fields) <= 6:
            raise ValueError(f"Expected 5 to 6 fields, found {len(fields)}: {text}")
        fields += ["*"] * (6 - len(fields))
        parsed = [_field(field, *bounds) for field, bounds in zip(fields, BOUNDS, strict=True)]
        self.values = [values for values, _ in parsed]
        self.stars = [star for _, star in parsed]

    def matches(self, time: datetime) -> bool:
        """Whether it fires at this second."""
        now = (time.second, time.minute, time.hour, time.day, time.month, time.isoweekday() % 7)
        second, minute, hour, day, month, weekday = (
            value in allowed for value, allowed in zip(now, self.values, strict=True)
        )
        either_star = self.stars[3] or self.stars[5]
        return second and minute and hour and month and (day and weekday if either_star else day or weekday)


def _field(text: str, low: int, high: int, names: dict[str, int]) -> tuple[set[int], bool]:
    values: set[int] = set()
    star = False
    for part in filter(None, text.split(",")):
        found, is_star = _range(part, low, high, names)
        values |= found
        star |= is_star
    return values, star


def _range(part: str, low: int, high: int, names: dict[str, int]) -> tuple[set[int], bool]:
    span, *steps = part.split("/")
    ends = span.split("-")
    if len(steps) > 1 or len(ends) > 2:
        raise ValueError(f"Too many slashes or hyphens: {part}")
    star = ends[0] in ("*", "?")
    start, end = (low, high) if star else (_number(ends[0], names), _number(ends[-1], names))
    step = _number(steps[0], {}) if steps else 1
    if steps and len(ends) == 1:
        end = high  # "N/step" means "N-max/step"
    if start < low or end > high or start > end or step == 0:
        raise ValueError(f"Range {start}-{end}/{step} out of {low}-{high}: {part}")
    return set(range(start, end + 1, step)), star


def _number(text: str, names: dict[str, int]) -> int:
    found = names.get(text.lower())
    value = int(text) if found is None else found
    if value < 0:
        raise ValueError(f"Negative number ({value}) not allowed: {text}")
    return value
