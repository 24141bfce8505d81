"""Cron: five familiar fields become the six that Kubeflow's scheduler reads, with the same meaning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.shared.errors import UserError
from pipelines.kubeflow.schedules import NICKNAMES, parse_cron, parse_kubeflow
from tests.helpers.robfig_cron import RobfigCron

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
BOUNDS = ((0, 59, None), (0, 23, None), (1, 31, None), (1, 12, MONTHS), (0, 7, DAYS))
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)  # a Sunday


@st.composite
def fields(draw, low, high, names):
    """One field of crontab(5), as a person would write it."""

    def number(value):
        if names and value < low + len(names) and draw(st.booleans()):
            return names[value - low].capitalize() if draw(st.booleans()) else names[value - low]
        return str(value)

    def part():
        start = draw(st.integers(low, high))
        end = draw(st.integers(start, high))
        form = draw(st.sampled_from(["one", "range", "step", "star step"]))
        step = draw(st.integers(1, high))
        if form == "one":
            return number(start)
        if form == "star step":
            return f"*/{step}"
        # a range from Sunday by name to a number is Vixie's own; numbers alone are read alike everywhere
        return f"{start}-{end}" + (f"/{step}" if form == "step" else "")

    return "*" if draw(st.booleans()) else ",".join(part() for _ in range(draw(st.integers(1, 3))))


expressions = st.tuples(*(fields(*bounds) for bounds in BOUNDS)).map(" ".join)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2034, 1, 1)).map(
    lambda moment: moment.replace(second=0, microsecond=0, tzinfo=UTC)
)


def vixie(text, moment):
    """crontab(5), word by word: whether an expression holds in this minute."""
    now = (moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
    fits = []
    for field, (low, high, names), value in zip(text.split(), BOUNDS, now, strict=True):
        allowed = set()
        for part in field.lower().split(","):
            span, _, step = part.partition("/")
            ends = [low, high] if span == "*" else span.split("-")
            ends = [names.index(end) + low if names and end in names else int(end) for end in ends]
            allowed |= set(range(ends[0], ends[-1] + 1, int(step or 1)))
        fits.append(value in allowed or (names is DAYS and value == 0 and 7 in allowed))
    minute, hour, day, month, weekday = fits
    of_month, of_week = text.split()[2], text.split()[4]
    on_day = day and weekday if of_month.startswith("*") or of_week.startswith("*") else day or weekday
    return minute and hour and month and on_day


def readable(text):
    try:
        return parse_cron(text)
    except UserError:
        return None


@settings(max_examples=150, deadline=None, derandomize=True)
@given(expressions, st.lists(moments, min_size=5, max_size=5))
def test_kubeflow_reads_what_was_written(text, times):
    cron = readable(text)
    if cron is None:
        return
    there = RobfigCron(cron.kubeflow)
    near = list(zip(range(3), cron.after(times[0]), strict=False))
    for time in [*times, *(time for _, time in near)]:
        assert there.matches(time) == vixie(text, time)
        assert not there.matches(time + timedelta(seconds=1))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(expressions, moments)
def test_the_next_time_is_the_first_that_fits(text, start):
    cron = readable(text)
    if cron is None:
        return
    first = next(cron.after(start))
    assert first > start and vixie(text, first)
    # the minutes before it, and a sample of those further away
    between = int((first - start).total_seconds() // 60)
    for minutes in [*range(1, min(between, 500)), *range(500, between, max(between // 50, 1))]:
        assert not vixie(text, start + timedelta(minutes=minutes))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(expressions)
def test_only_what_programs_disagree_on_or_what_never_comes_is_refused(text):
    if readable(text) is None:
        _, _, day, month, weekday = text.split()
        unclear = "*" not in (day, weekday) and "*/" in day + weekday
        never = all(
            not vixie(f"* * {day} {month} {weekday}", datetime(2028, 1, 1, tzinfo=UTC) + timedelta(days=days))
            for days in range(366)
        )
        assert unclear or never


@pytest.mark.parametrize(
    ("text", "kubeflow", "times"),
    [
        ("0 3 * * *", "0 0 3 * * *", ["11-23 03:00", "11-24 03:00"]),
        ("*/30 9-10 * * mon-fri", "0 */30 9-10 * * mon-fri", ["11-23 09:00", "11-23 09:30", "11-23 10:00"]),
        ("0 0 * * 7", "0 0 0 * * 0", ["11-29 00:00", "12-06 00:00"]),
        ("0 0 * * 5-7", "0 0 0 * * 0,5,6", ["11-27 00:00", "11-28 00:00", "11-29 00:00"]),
        ("0 0 * * fri-sun", "0 0 0 * * 0,5,6", ["11-27 00:00", "11-28 00:00", "11-29 00:00"]),
        # one of the two days is enough
        ("0 12 25 * mon", "0 0 12 25 * mon", ["11-23 12:00", "11-25 12:00", "11-30 12:00"]),
        # every day of the month is not *: with a day of the week, each day fits
        ("0 12 1-31 * mon", "0 0 12 1-31 * mon", ["11-23 12:00", "11-24 12:00"]),
        ("0 0 */10 * *", "0 0 0 */10 * *", ["12-01 00:00", "12-11 00:00"]),
        ("0 0 */1 * mon", "0 0 0 * * mon", ["11-23 00:00", "11-30 00:00"]),
        ("@weekly", "0 0 0 * * 0", ["11-29 00:00"]),
        ("5/15 13 * * *", "0 5/15 13 * * *", ["11-22 13:05", "11-22 13:20", "11-22 13:35", "11-22 13:50"]),
        ("0 0 * * 5-5/2", "0 0 0 * * 5", ["11-27 00:00", "12-04 00:00"]),
    ],
)
def test_examples(text, kubeflow, times):
    cron = parse_cron(text)
    assert cron.kubeflow == kubeflow
    assert [f"{time:%m-%d %H:%M}" for time in cron.next_times(len(times), NOON)] == times
    again = parse_kubeflow(kubeflow)
    assert again is not None and again.next_times(3, NOON) == cron.next_times(3, NOON)


def test_a_leap_day_is_found():
    assert parse_cron("0 0 29 2 *").next_times(2, datetime(2096, 3, 1, tzinfo=UTC))[0].year == 2104


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_nicknames(nickname):
    assert len(parse_cron(nickname).next_times(2)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("61 * * * *", "minute = 61: must be 0–59"),
        ("0 24 * * *", "hour = 24: must be 0–23"),
        ("0 0 0 * *", "day of month = 0: must be 1–31"),
        ("0 0 * 13 *", "month = 13: must be 1–12 or jan–dec"),
        ("0 0 * * 1,8", "day of week = 1,8: must be 0–7 or sun–sat"),
        ("0 0 * * L", "day of week = L"),
        ("x * * * *", "minute = x"),
        ("1,,2 * * * *", "minute = 1,,2: must be"),
        ("-5 * * * *", "minute = -5"),
        ("30-10 * * * *", "minute = 30-10: must be 0–59"),
        ("*/0 * * * *", "minute = */0"),
        ("*/x * * * *", "minute = */x"),
        ("0 0 L * *", "day of month = L"),
        ("0 0 * * 5L", "day of week = 5L"),
        ("0 0 * * 1#2", "day of week = 1#2"),
        ("0 0 1,* * 1", "write the days as a list"),
        ("0 3 * *", "must have 5 fields"),
        ("0 0 3 * * *", "must have 5 fields"),
        ("", "must have 5 fields"),
        ("@every 1h", "@hourly"),
        ("0 0 31 2 *", "day of month = 31: must be 1–31 and a day of its month"),
        ("0 0 */2 * 1", "write the days as a list"),
        ("0 0 1 * */2", "write the days as a list"),
    ],
)
def test_a_wrong_time_is_told_by_its_field(text, said):
    with pytest.raises(UserError, match=r"^cron") as refused:
        parse_cron(text)
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["0 3 * * *", "30 0 3 * * *", "@every 1h", "0 0 3 * * bad", "0 0 0 1 * */2"])
def test_what_is_not_to_the_minute_is_left_as_it_is(text):
    assert parse_kubeflow(text) is None
