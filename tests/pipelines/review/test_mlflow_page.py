"""What people change in MLflow's page or by its client, and what the review makes of it."""

from __future__ import annotations

import hashlib
import json

import pytest

from components.shared.errors import UserError
from components.shared.tracking.client import connect
from pipelines.review import carry_out, decide
from pipelines.review.decide import Reviewer
from pipelines.review.history import history, notes
from pipelines.review.state import Place, State, read
from tests.helpers import reviewed

ANNA, BEN = Reviewer("anna"), Reviewer("ben")


@pytest.fixture(scope="module")
def logged(tracking_uri, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("logged"))
        return reviewed.log_model("contrastive-page")


@pytest.fixture
def client(logged):
    import mlflow

    return mlflow.MlflowClient()


@pytest.fixture
def place(request, logged, client):
    """Version 2 is champion, 1 was before; 3 waits for review."""
    connect()
    place = Place("p-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12])
    for digest in "123":
        reviewed.put_up(place.model, logged, digest)
    for number in "12":
        decide.approve(place, number, f"approve {number}", ANNA)
    return place


def statuses(place) -> dict[str, str]:
    state = read(place)
    return {number: state.status(number) for number in state.entries}


def told(place) -> str:
    return " | ".join(notes(read(place)))


def whats(place) -> list[str]:
    return [event.what for event in history(read(place))]


def crowned(place) -> tuple[str | None, str | None]:
    state: State = read(place)
    return state.champion, state.crowned.get("previous-champion")


def test_nothing_is_noted_where_nothing_was_changed(place):
    assert notes(read(place)) == []
    assert statuses(place) == {"1": "previous-champion", "2": "champion", "3": "challenger"}


def test_a_champion_set_by_hand_is_champion_and_said_to_be_so(place, client):
    client.set_registered_model_alias(place.model, "champion", "3")
    assert statuses(place) == {"1": "approved-before", "2": "previous-champion", "3": "champion"}
    assert "version 3 is champion by no decision: it was made so outside of review" in told(place)
    assert "`rollback` goes to version 2" in told(place)
    assert whats(place)[-1] == "champion was moved from version 2 to version 3"
    assert "champion already" in decide.approve(place, "3", "x", ANNA).done
    decide.rollback(place, "not reviewed", BEN)
    assert crowned(place) == ("2", "1")
    assert whats(place)[2:] == [
        "champion was moved from version 2 to version 3",
        "rolled back from version 3 to version 2",
    ]
    decide.rollback(place, "and once more", BEN)
    assert crowned(place) == ("1", None)


def test_a_rollback_by_hand_is_one(place, client):
    client.set_registered_model_alias(place.model, "champion", "1")
    assert statuses(place)["1"] == "champion"
    assert read(place).previous() is None
    with pytest.raises(UserError, match="no previous champion"):
        decide.rollback(place, "x", ANNA)
    decide.approve(place, "3", "next", ANNA)
    assert crowned(place) == ("3", "1")


def test_a_champion_whose_alias_was_removed_is_missed(place, client):
    client.delete_registered_model_alias(place.model, "champion")
    assert "no version is champion: version 2 lost the alias champion" in told(place)
    assert whats(place)[-1] == "version 2 lost the alias champion; no version is champion"
    decide.approve(place, "3", "next", ANNA)
    assert crowned(place) == ("3", "1")


def test_rolling_back_without_a_champion_goes_to_the_one_before(place, client):
    client.delete_registered_model_alias(place.model, "champion")
    decide.rollback(place, "2 was bad", ANNA)
    assert crowned(place) == ("1", None)


def test_a_previous_champion_set_by_hand_is_where_rollback_goes(place, client):
    client.set_registered_model_alias(place.model, "previous-champion", "3")
    assert "the alias previous-champion was set to version 3 outside of review" in told(place)
    decide.rollback(place, "x", ANNA)
    assert read(place).champion == "3"


def test_a_previous_champion_removed_by_hand_is_no_place_to_go_back_to(place, client):
    client.delete_registered_model_alias(place.model, "previous-champion")
    with pytest.raises(UserError, match="no previous champion"):
        decide.rollback(place, "x", ANNA)


def test_a_deleted_champion_is_missed_and_rollback_passes_over_deleted_ones(place, client):
    decide.approve(place, "3", "next", ANNA)
    client.delete_model_version(place.model, "2")
    assert "approved version 2 (deleted since) in place of version 1" in whats(place)
    decide.rollback(place, "3 is slow", ANNA)
    assert crowned(place)[0] == "1"
    client.delete_model_version(place.model, "1")
    assert "the champion, version 1, was deleted" in told(place)
    with pytest.raises(UserError, match=r"there is no version 2 any more \(it was deleted\); versions: 3"):
        decide.approve(place, "2", "x", ANNA)
    decide.approve(place, "3", "all that is left", ANNA)
    assert crowned(place) == ("3", None)


def test_a_rejection_by_tag_counts_and_one_whose_tags_are_gone_still_does(place, client):
    client.set_model_version_tag(place.model, "3", "review.status", "rejected")
    assert statuses(place)["3"] == "rejected"
    assert "its tag review.status says 'rejected' by no decision; it counts as rejected" in told(place)
    with pytest.raises(UserError, match=r"it was rejected; .*--override"):
        decide.approve(place, "3", "x", ANNA)
    decide.reject(place, "3", "wrong", BEN)
    assert client.get_model_version(place.model, "3").tags["review.by"] == "ben"
    client.delete_model_version_tag(place.model, "3", "review.status")
    assert statuses(place)["3"] == "rejected"
    assert "version 3: rejected by ben, but its tag review.status is gone" in told(place)
    with pytest.raises(UserError, match="rejected by ben: wrong"):
        decide.approve(place, "3", "x", ANNA)


def test_an_approval_by_tag_alone_is_none(place, client):
    client.set_model_version_tag(place.model, "3", "review.status", "approved")
    assert statuses(place)["3"] == "challenger"
    assert "says 'approved' by no decision; only aliases and decisions count" in told(place)


def test_a_verdict_taken_away_takes_an_override(place, client):
    client.delete_model_version_tag(place.model, "3", "verdict")
    with pytest.raises(UserError, match=r"version 3: it has no verdict of the gate; .*--override"):
        decide.approve(place, "3", "x", ANNA)


def test_odd_tags_and_descriptions_are_shown_as_they_are(place, client, capsys):
    from pipelines.__main__ import main

    for key, value in {"gain": "much", "gain_interval": "1", "test_accuracy": "", "confidence": "\x1b[31m"}.items():
        client.set_model_version_tag(place.model, "3", key, value)
    client.update_model_version(place.model, "3", "\x1b[31mred\n\n# changed by hand")
    main(["review", "list", "--model", place.model])
    row = capsys.readouterr().out.splitlines()[3]
    assert row.split()[:5] == ["3", "challenger", "passed", "-", "-"]
    main(["review", "show", "--model", place.model, "3"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "# changed by hand" in out


def test_a_record_changed_by_hand_is_told(place, client):
    key = next(iter(read(place).log.decisions)).key
    client.set_registered_model_tag(place.model, key, "gone")
    assert f"the tag {key} can't be read as a decision" in told(place)
    assert whats(place) == ["approved version 2 in place of version 1"]
    decide.approve(place, "3", "next", ANNA)
    assert crowned(place) == ("3", "2")


def test_a_challenger_set_by_hand_or_put_up_again_after_rejection(place, client, logged):
    client.set_registered_model_alias(place.model, "challenger", "1")
    assert read(place).challenger == "1"
    assert statuses(place)["1"] == "previous-champion"
    decide.reject(place, "3", "wrong", ANNA)
    assert read(place).challenger == "1"
    reviewed.put_up(place.model, logged, "3")
    assert "version 3 was rejected, and has been put up for review again" in told(place)
    assert "version 3 is rejected" in decide.reject(place, "3", "still wrong", BEN).done
    assert read(place).challenger is None


# --- two at once, in every order that matters; tests/pipelines/review/test_races.py does it with processes


def rival(place, number, after_calls, patch, where, name):
    """Let ben approve another version just before the nth call of a function."""
    original, calls = getattr(where, name), []

    def wrapped(*arguments):
        calls.append(1)
        if len(calls) == after_calls:
            patch.setattr(where, name, original)
            decide.approve(place, number, "faster", BEN)
        return original(*arguments)

    patch.setattr(where, name, wrapped)


@pytest.mark.parametrize(
    ("where", "name", "nth"),
    [(decide, "copied", 1), (carry_out, "_point", 1), (carry_out, "_point", 2), (carry_out, "_tell_version", 1)],
)
def test_two_who_approve_at_once_end_with_one_champion_and_its_records(
    place, logged, monkeypatch, where, name, nth
):
    reviewed.put_up(place.model, logged, "4")
    rival(place, "4", nth, monkeypatch, where, name)
    outcome = decide.approve(place, "3", "better", ANNA)
    state = read(place)
    last = state.log.last_move
    assert len(state.log.decisions) == 4
    assert (state.champion, state.crowned["previous-champion"]) == (last.champion, last.previous)
    assert outcome.overtaken == (last.by == "ben")
    assert [other.by for other in outcome.rivals] == ["ben"]
    assert notes(state) == []
    if outcome.overtaken:
        assert "at the same moment ben made version 4 champion: faster" in outcome.done
    champion_before = state.previous()
    decide.rollback(place, "x", ANNA)
    assert read(place).champion == champion_before == last.previous


def test_a_champion_set_by_hand_at_the_same_moment_is_left_alone(place, client, monkeypatch):
    original = carry_out._point

    def by_hand(point_place, alias, number):
        done = original(point_place, alias, number)
        if alias == "champion":
            monkeypatch.setattr(carry_out, "_point", original)
            # a version that no decision ever made champion
            client.set_registered_model_alias(place.model, "champion", "4")
        return done

    reviewed.put_up(place.model, client.get_model_version(place.model, "1").source, "4")
    monkeypatch.setattr(carry_out, "_point", by_hand)
    outcome = decide.approve(place, "3", "better", ANNA)
    assert outcome.overtaken
    assert "somebody made version 4 champion by hand" in outcome.done
    assert read(place).champion == "4"
    assert read(place).previous() == "3"


def test_a_version_put_up_while_another_is_decided_stays_challenger(place, client, logged, monkeypatch):
    original = carry_out.read
    seen = []

    def put_up_meanwhile(asked):
        state = original(asked)
        seen.append(state.challenger)
        if len(seen) == 2:
            reviewed.put_up(place.model, logged, "4")
        return state

    monkeypatch.setattr(carry_out, "read", put_up_meanwhile)
    decide.reject(place, "3", "no", ANNA)
    assert read(place).challenger == "4"
    assert json.loads(read(place).log.decisions[-1].model_dump_json())["version"] == "3"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("(sqlite3.IntegrityError) UNIQUE constraint failed: registered_model_aliases.alias", None),
        ('(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "alias_pk"', None),
        ("(psycopg2.errors.DiskFull) could not extend file", "DiskFull"),
    ],
)
def test_an_alias_that_two_make_at_once_is_set_at_the_next_look(place, client, monkeypatch, said, told):
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    original = mlflow.MlflowClient.set_registered_model_alias

    def second(self, name, alias, version):
        # the other one came first, with its own version
        monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", original)
        original(self, name, alias, "1")
        raise MlflowException(said, error_code=BAD_REQUEST)

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", second)
    if told is not None:
        with pytest.raises(UserError, match=told):
            decide.approve(place, "3", "better", ANNA)
        return
    assert not decide.approve(place, "3", "better", ANNA).overtaken
    assert crowned(place) == ("3", "2")
