"""The record of decisions, without a registry: its order, what can't be read, and who was champion before."""

from __future__ import annotations

import json

import pytest

from pipelines.review.record import KEY, Decision, Record


def move(sequence, champion, replaced, action="approve", clock=0):
    return Decision(
        id=f"{sequence}-{champion}",
        sequence=sequence,
        at=f"2026-11-22T10:00:{sequence + clock:02}.000000Z",
        by="anna",
        action=action,
        version=champion or replaced,
        reason="r",
        champion=champion,
        replaced=replaced,
    )


def recorded(*decisions):
    return Record.of({decision.key: decision.model_dump_json() for decision in decisions})


def test_decisions_come_in_order_whatever_the_clocks_say():
    first, second = move(1, "1", None, clock=30), move(2, "2", "1")
    record = recorded(second, first)
    assert record.decisions == [first, second]
    assert record.last_moves() == [second]
    assert record.next_sequence == 3


@pytest.mark.parametrize("text", ["", "no JSON", "{}", '{"id": 1}', "[]"])
def test_a_record_that_was_changed_by_hand_is_named_and_the_rest_is_read(text):
    kept = move(1, "1", None)
    record = Record.of({kept.key: kept.model_dump_json(), f"{KEY}x": text, "other": "tag"})
    assert record.decisions == [kept]
    assert record.unreadable == [f"{KEY}x"]


def test_records_of_earlier_releases_are_read():
    kept = move(1, "1", None)
    earlier = {**json.loads(kept.model_dump_json()), "after": "abc", "previous": "2"}
    assert Record.of({kept.key: json.dumps(earlier)}).decisions == [kept]


BEGINNING = (move(1, "1", None), move(2, "2", "1"), move(3, "3", "2"))


@pytest.mark.parametrize(
    ("more", "champion", "line"),
    [
        ((), "3", "123"),
        ((move(4, "2", "3", "rollback"),), "2", "12"),
        ((move(4, "2", "3", "rollback"), move(5, "1", "2", "rollback")), "1", "1"),
        ((move(4, "1", "3"),), "1", "1231"),
        ((move(4, None, "3", "withdraw"),), None, "12"),
        ((move(4, None, "3", "withdraw"), move(5, "2", None, "rollback")), "2", "12"),
        # two at once, who both replaced 3
        ((move(4, "4", "3"), move(4, "5", "3", clock=1)), "5", "1235"),
        # by hand: to another version, back, away, and away before the next approval
        ((), "4", "1234"),
        ((), "1", "1"),
        ((), None, "12"),
        ((move(4, "4", None),), "4", "124"),
    ],
)
def test_the_line_of_champions(more, champion, line):
    assert recorded(*BEGINNING, *more).line(champion) == list(line)
