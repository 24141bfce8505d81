"""What people change in MLflow's page or by its client, and what the review makes of it."""

from __future__ import annotations

import hashlib

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST

from components.shared.errors import UserError
from components.shared.tracking.client import connect
from pipelines.review import decide, write
from pipelines.review.decide import Reviewer
from pipelines.review.history import history, notes
from pipelines.review.state import ReviewedModels, State, read
from tests.helpers import reviewed

ANNA, BEN = Reviewer("anna"), Reviewer("ben")


@pytest.fixture(scope="module")
def logged(tracking_uri, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("logged"))
        return reviewed.log_model("contrastive-page")


@pytest.fixture
def client(logged):
    return mlflow.MlflowClient()


@pytest.fixture
def models(request, logged, client):
    """Version 2 is champion, 1 was before; 3 waits for review."""
    connect()
    models = ReviewedModels("p-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12])
    for digest in "123":
        reviewed.put_up(models.model, logged, digest)
    for number in "12":
        decide.approve(models, number, f"approve {number}", ANNA)
    return models


def statuses(models) -> dict[str, str]:
    state = read(models)
    return {number: state.status(number) for number in state.versions}


def noted(models) -> str:
    return " | ".join(notes(read(models)))


def whats(models) -> list[str]:
    return [event.what for event in history(read(models))]


def champions(models) -> tuple[str | None, str | None]:
    state: State = read(models)
    return state.champion, state.champion_aliases.get("previous-champion")


def test_nothing_is_noted_where_nothing_was_changed(models):
    assert notes(read(models)) == []
    assert statuses(models) == {"1": "previous-champion", "2": "champion", "3": "challenger"}


def test_a_champion_set_by_hand_is_champion_and_said_to_be_so(models, client):
    client.set_registered_model_alias(models.model, "champion", "3")
    assert statuses(models) == {"1": "approved-before", "2": "previous-champion", "3": "champion"}
    assert "version 3 is champion by no decision: it was made so outside of review" in noted(models)
    assert "`rollback` goes to version 2" in noted(models)
    assert whats(models)[-1] == "champion was moved from version 2 to version 3"
    assert "champion already" in decide.approve(models, "3", "x", ANNA).done
    decide.rollback(models, "not reviewed", BEN)
    assert champions(models) == ("2", "1")
    assert whats(models)[2:] == [
        "champion was moved from version 2 to version 3",
        "rolled back from version 3 to version 2",
    ]
    decide.rollback(models, "and once more", BEN)
    assert champions(models) == ("1", None)


def test_a_rollback_by_hand_is_one(models, client):
    client.set_registered_model_alias(models.model, "champion", "1")
    assert statuses(models)["1"] == "champion"
    assert read(models).previous is None
    with pytest.raises(UserError, match="no previous champion"):
        decide.rollback(models, "x", ANNA)
    decide.approve(models, "3", "next", ANNA)
    assert champions(models) == ("3", "1")


def test_a_champion_whose_alias_was_removed_is_missed(models, client):
    client.delete_registered_model_alias(models.model, "champion")
    assert "no version is champion: version 2 lost the alias champion" in noted(models)
    assert whats(models)[-1] == "version 2 lost the alias champion; no version is champion"
    decide.approve(models, "3", "next", ANNA)
    assert champions(models) == ("3", "1")


def test_rolling_back_without_a_champion_goes_to_the_one_before(models, client):
    client.delete_registered_model_alias(models.model, "champion")
    decide.rollback(models, "2 was bad", ANNA)
    assert champions(models) == ("1", None)


def test_rolling_back_follows_the_record_whatever_the_alias_of_the_previous_champion_says(models, client):
    client.set_registered_model_alias(models.model, "previous-champion", "3")
    assert "previous-champion is at version 3; by the record `rollback` goes to version 1" in noted(models)
    client.delete_registered_model_alias(models.model, "previous-champion")
    assert "previous-champion is at no version; by the record `rollback` goes to version 1" in noted(models)
    decide.rollback(models, "x", ANNA)
    assert champions(models) == ("1", None)


def test_a_deleted_champion_is_missed_and_rollback_passes_over_deleted_ones(models, client):
    decide.approve(models, "3", "next", ANNA)
    client.delete_model_version(models.model, "2")
    assert "approved version 2 (deleted since) in place of version 1" in whats(models)
    decide.rollback(models, "3 is slow", ANNA)
    assert champions(models)[0] == "1"
    client.delete_model_version(models.model, "1")
    assert "the champion, version 1, was deleted" in noted(models)
    with pytest.raises(UserError, match=r"there is no version 2 any more \(it was deleted\); versions: 3"):
        decide.approve(models, "2", "x", ANNA)
    decide.approve(models, "3", "all that is left", ANNA)
    assert champions(models) == ("3", None)


def test_a_rejection_by_tag_counts_and_one_whose_tags_are_gone_still_does(models, client):
    client.set_model_version_tag(models.model, "3", "review.status", "rejected")
    assert statuses(models)["3"] == "rejected"
    assert "its tag review.status says 'rejected' by no decision; it counts as rejected" in noted(models)
    with pytest.raises(UserError, match=r"it was rejected; .*--override"):
        decide.approve(models, "3", "x", ANNA)
    decide.reject(models, "3", "wrong", BEN)
    assert client.get_model_version(models.model, "3").tags["review.by"] == "ben"
    client.delete_model_version_tag(models.model, "3", "review.status")
    assert statuses(models)["3"] == "rejected"
    assert "version 3: rejected by ben, but its tag review.status is gone" in noted(models)
    with pytest.raises(UserError, match="rejected by ben: wrong"):
        decide.approve(models, "3", "x", ANNA)


def test_an_approval_by_tag_alone_is_none(models, client):
    client.set_model_version_tag(models.model, "3", "review.status", "approved")
    assert statuses(models)["3"] == "challenger"
    assert "says 'approved' by no decision; only aliases and decisions count" in noted(models)


def test_a_verdict_taken_away_takes_an_override(models, client):
    client.delete_model_version_tag(models.model, "3", "verdict")
    with pytest.raises(UserError, match=r"version 3: it has no verdict of the gate; .*--override"):
        decide.approve(models, "3", "x", ANNA)


def test_odd_tags_and_descriptions_are_shown_as_they_are(models, client, capsys):
    from pipelines.__main__ import main

    for key, value in {"gain": "much", "gain_interval": "1", "test_accuracy": "", "confidence": "\x1b[31m"}.items():
        client.set_model_version_tag(models.model, "3", key, value)
    client.update_model_version(models.model, "3", "\x1b[31mred\n\n# changed by hand")
    main(["review", "list", "--model", models.model])
    row = capsys.readouterr().out.splitlines()[3]
    assert row.split()[:5] == ["3", "challenger", "passed", "-", "-"]
    main(["review", "show", "--model", models.model, "3"])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "# changed by hand" in out


def test_a_record_changed_by_hand_is_noted(models, client):
    key = next(iter(read(models).record.decisions)).key
    client.set_registered_model_tag(models.model, key, "gone")
    assert f"the tag {key} can't be read as a decision" in noted(models)
    assert whats(models) == ["approved version 2 in place of version 1"]
    decide.approve(models, "3", "next", ANNA)
    assert champions(models) == ("3", "2")


def test_a_challenger_set_by_hand_or_put_up_again_after_rejection(models, client, logged):
    client.set_registered_model_alias(models.model, "challenger", "1")
    assert read(models).challenger == "1"
    assert statuses(models)["1"] == "previous-champion"
    decide.reject(models, "3", "wrong", ANNA)
    assert read(models).challenger == "1"
    reviewed.put_up(models.model, logged, "3")
    assert read(models).challenger == "1"
    client.set_registered_model_alias(models.model, "challenger", "3")
    assert "version 3 was rejected, and has been put up for review again" in noted(models)
    assert "version 3 is rejected" in decide.reject(models, "3", "still wrong", BEN).done
    assert read(models).challenger is None


# --- two at once, in every order that matters; tests/pipelines/review/test_races.py does it with processes


def decide_meanwhile(patch, where, name, decision):
    """Let somebody else decide just before a function is called for the first time."""
    original = getattr(where, name)

    def wrapped(*arguments):
        patch.setattr(where, name, original)
        decision()
        return original(*arguments)

    patch.setattr(where, name, wrapped)


# ben decides before anna's alias is set, between her alias and her record, and after both
@pytest.mark.parametrize(
    ("where", "name", "overtaken"),
    [(decide, "move_champion", False), (decide, "put_on_record", True), (decide, "show_in_page", True)],
)
def test_two_who_approve_at_once_end_with_one_champion_and_its_records(
    models, logged, monkeypatch, where, name, overtaken
):
    reviewed.put_up(models.model, logged, "4")
    decide_meanwhile(monkeypatch, where, name, lambda: decide.approve(models, "4", "faster", BEN))
    outcome = decide.approve(models, "3", "better", ANNA)
    state = read(models)
    assert len(state.record.decisions) == 4
    assert (state.champion, state.previous) == (("4", "3") if overtaken else ("3", "2"))
    assert outcome.overtaken == overtaken
    assert [other.by for other in outcome.rivals] == ["ben"]
    assert notes(state) == []
    assert "moved" not in " ".join(whats(models))
    if overtaken:
        assert "but at the same moment ben approved version 4 in place of version 3 (faster)" in outcome.done
        assert outcome.done.endswith("; version 4 is champion")
    decide.rollback(models, "x", ANNA)
    assert read(models).champion == state.previous


def test_a_withdrawal_that_hits_a_champion_made_just_before_says_so(models, monkeypatch):
    decide_meanwhile(monkeypatch, decide, "move_champion", lambda: decide.approve(models, "3", "new", BEN))
    outcome = decide.withdraw(models, "2", "wrong", ANNA)
    assert outcome.overtaken
    assert outcome.done == (
        "withdrew version 2, but at the same moment ben approved version 3 in place of version 2 (new); "
        "no version is champion"
    )
    assert champions(models) == (None, "1")


def test_a_champion_set_by_hand_at_the_same_moment_is_left_alone(models, client, monkeypatch):
    def by_hand():
        client.set_registered_model_alias(models.model, "champion", "4")

    reviewed.put_up(models.model, client.get_model_version(models.model, "1").source, "4")
    decide_meanwhile(monkeypatch, decide, "put_on_record", by_hand)
    outcome = decide.approve(models, "3", "better", ANNA)
    assert outcome.overtaken
    assert outcome.done.endswith("somebody moved the alias by hand; version 4 is champion")
    assert read(models).champion == "4"
    assert read(models).previous == "3"


def test_a_version_put_up_while_another_is_decided_stays_challenger(models, client, logged, monkeypatch):
    decide_meanwhile(monkeypatch, write, "read", lambda: reviewed.put_up(models.model, logged, "4"))
    decide.reject(models, "3", "no", ANNA)
    assert read(models).challenger == "4"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("(sqlite3.IntegrityError) UNIQUE constraint failed: registered_model_aliases.alias", None),
        ('(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "alias_pk"', None),
        ("(psycopg2.errors.DiskFull) could not extend file", "DiskFull"),
    ],
)
def test_an_alias_that_two_make_at_once_is_set_once_more(models, monkeypatch, said, error):
    original = mlflow.MlflowClient.set_registered_model_alias

    first = []

    def second(self, name, alias, version):
        if first:
            return original(self, name, alias, version)
        # the other one came first, with its own version
        first.append(original(self, name, alias, "1"))
        raise MlflowException(said, error_code=BAD_REQUEST)

    monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", second)
    if error is not None:
        with pytest.raises(UserError, match=error):
            decide.approve(models, "3", "better", ANNA)
        return
    assert not decide.approve(models, "3", "better", ANNA).overtaken
    assert champions(models) == ("3", "2")
