"""The record of decisions, without a registry: order, who counts, what was champion before."""

from __future__ import annotations

import random

import pytest

from pipelines.review.log import KEY, Decision, Log


def move(id, version, after, replaced, sequence, previous="same", at=None, action="approve"):
    return Decision(
        id=id,
        sequence=sequence,
        at=at or f"2026-11-22T10:00:0{sequence}.000000Z",
        by="anna",
        action=action,
        version=version,
        reason="r",
        after=after,
        champion=version,
        replaced=replaced,
        previous=replaced if previous == "same" else previous,
    )


def logged(*decisions):
    tags = {decision.key: decision.model_dump_json() for decision in decisions}
    return Log.of(dict(random.sample(sorted(tags.items()), len(tags))))


def test_decisions_come_in_order_whatever_the_clocks_say():
    first = move("a", "1", None, None, 1, at="2026-11-22T12:00:00.000000Z")
    second = move("b", "2", "a", "1", 2, at="2026-11-22T09:00:00.000000Z")
    log = logged(second, first)
    assert [decision.id for decision in log.decisions] == ["a", "b"]
    assert log.last_move == second
    assert log.next_sequence() == 3
    assert log.overtaken() == set()


def test_of_two_made_at_once_all_readers_take_the_same():
    first = move("a", "1", None, None, 1)
    ours, theirs = (
        move("b", "2", "a", "1", 2, at="2026-11-22T10:00:02.000002Z"),
        move("c", "3", "a", "1", 2, at="2026-11-22T10:00:02.000001Z"),
    )
    log = logged(first, ours, theirs)
    assert log.last_move == ours
    assert log.overtaken() == {"c"}
    assert log.line() == [ours, first]
    assert log.before("2") == "1"
    assert log.tags("3")["review.status"] == "overtaken"
    assert log.tags("2")["review.status"] == "approved"


def test_what_was_built_on_an_overtaken_move_is_overtaken_too():
    first = move("a", "1", None, None, 1)
    lost, upon, won = (move("b", "2", "a", "1", 2), move("c", "3", "b", "2", 3), move("d", "4", "a", "1", 4))
    log = logged(first, lost, upon, won)
    assert log.overtaken() == {"b", "c"}
    assert log.before("4") == "1"


def test_the_first_two_moves_of_all_can_be_made_at_once():
    log = logged(move("b", "2", None, None, 1), move("a", "1", None, None, 1))
    assert log.last_move.id == "b"
    assert log.overtaken() == {"a"}


def test_going_back_twice_leads_to_the_champion_before_and_not_forth_again():
    one, two, three = move("a", "1", None, None, 1), move("b", "2", "a", "1", 2), move("c", "3", "b", "2", 3)
    back = move("d", "2", "c", "3", 4, previous="1", action="rollback")
    log = logged(one, two, three, back)
    assert log.before("2") == "1"
    assert log.before("1") is None


@pytest.mark.parametrize("text", ["", "no JSON", "{}", '{"id": 1}', "[]"])
def test_a_record_that_was_changed_by_hand_is_told_and_the_rest_is_read(text):
    kept = move("a", "1", None, None, 1)
    log = Log.of({kept.key: kept.model_dump_json(), f"{KEY}x": text, "other": "tag"})
    assert log.decisions == (kept,)
    assert log.unreadable == (f"{KEY}x",)


def test_records_that_name_each_other_in_a_circle_end():
    log = logged(move("a", "1", "b", "2", 1), move("b", "2", "a", "1", 2))
    assert [decision.id for decision in log.line()] == ["b", "a"]


def test_a_deleted_record_makes_nothing_before_it_overtaken():
    one, two, three = move("a", "1", None, None, 1), move("b", "2", "a", "1", 2), move("c", "3", "b", "2", 3)
    assert logged(one, three).overtaken() == set()
    assert logged(one, two, three).overtaken() == set()
