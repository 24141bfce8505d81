"""Putting a version up for review in a real registry: once, also where two do it at once."""

from __future__ import annotations

import threading

import pytest

from components.shared.evaluation.champion import Champion
from components.shared.registry import versions as registry
from components.shared.registry.versions import find_champion, put_up_for_review


@pytest.fixture(scope="module")
def logged(tracking_uri):
    """The address of a logged model, without files."""
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    experiment = client().create_experiment("contrastive-put-up")
    made = client().create_logged_model(experiment_id=experiment, name="classifier")
    client().finalize_logged_model(made.model_id, "READY")
    return f"models:/{made.model_id}"


def client():
    import mlflow

    return mlflow.MlflowClient()


def numbers(name: str) -> set[str]:
    return {str(found.version) for found in client().search_model_versions(f"name = '{name}'")}


def test_two_at_once_leave_one_version(logged, monkeypatch):
    put_up_for_review("put-race", logged, "a" * 64, {}, "an earlier model")
    start, looked, versions = threading.Barrier(2, timeout=30), threading.local(), []
    find_version = registry.find_version

    def find_together(name, digest):
        """Both look before either has registered."""
        found = find_version(name, digest)
        if not getattr(looked, "once", False):
            looked.once = True
            start.wait()
        return found

    def put_up():
        versions.append(put_up_for_review("put-race", logged, "d" * 64, {"verdict": "blessed"}, "a card"))

    monkeypatch.setattr(registry, "find_version", find_together)
    both = [threading.Thread(target=put_up) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [version.number for version in versions] == ["2", "2"]
    assert numbers("put-race") == {"1", "2"}
    assert {key: str(at) for key, at in client().get_registered_model("put-race").aliases.items()} == {
        "challenger": "2"
    }
    version = client().get_model_version("put-race", "2")
    assert (version.description, version.tags["verdict"]) == ("a card", "blessed")


def test_who_may_not_delete_marks_the_second_version(logged, monkeypatch):
    import mlflow
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    put_up_for_review("put-editor", logged, "d" * 64, {"winner": "probe"}, "a card")
    find_version, looked = registry.find_version, []

    def too_early(name, digest):
        looked.append(digest)
        return None if len(looked) == 1 else find_version(name, digest)

    def refuse(*arguments):
        raise mlflow.exceptions.MlflowException("Permission denied", error_code=PERMISSION_DENIED)

    monkeypatch.setattr(registry, "find_version", too_early)
    monkeypatch.setattr(mlflow.MlflowClient, "delete_model_version", refuse)
    version = put_up_for_review("put-editor", logged, "d" * 64, {"winner": "finetune"}, "another card")
    assert (version.number, version.aliases) == ("1", ("challenger",))
    first, second = (client().get_model_version("put-editor", number) for number in ("1", "2"))
    assert (first.tags["winner"], first.description) == ("finetune", "another card")
    assert second.tags["duplicate_of"] == "1"


def announced(monkeypatch, client):
    """What an alias is set to from now on: each one is an announcement by the webhook."""
    found, set_alias = [], type(client).set_registered_model_alias

    def note(self, name, alias, version):
        found.append((name, alias, str(version)))
        set_alias(self, name, alias, version)

    monkeypatch.setattr(type(client), "set_registered_model_alias", note)
    return found


def test_thirty_unchanged_nights_are_announced_once(logged, monkeypatch):
    found = announced(monkeypatch, client())
    for night in range(30):
        put_up_for_review("put-nights", logged, "a" * 64, {"pipeline_run": str(night)}, "a card")
    assert found == [("put-nights", "challenger", "1")]
    assert client().get_model_version("put-nights", "1").tags["pipeline_run"] == "29"


@pytest.mark.parametrize("decision", ["rejected", "rolled back", "withdrawn"])
def test_what_a_reviewer_decided_against_is_not_put_up_again(logged, monkeypatch, decision):
    name = f"put-{decision.replace(' ', '-')}"
    put_up_for_review(name, logged, "a" * 64, {}, "a card")
    client().set_model_version_tag(name, "1", "review.status", decision)
    client().delete_registered_model_alias(name, "challenger")
    found = announced(monkeypatch, client())
    version = put_up_for_review(name, logged, "a" * 64, {}, "a card")
    assert (version.number, version.aliases, version.standing) == ("1", (), decision)
    assert found == []
    # another model is another matter
    assert put_up_for_review(name, logged, "b" * 64, {}, "a card").aliases == ("challenger",)


def test_the_champions_twin_in_another_model_is_not_put_up(logged, monkeypatch):
    put_up_for_review("put-twin", logged, "a" * 64, {}, "a card")
    client().copy_model_version("models:/put-twin/1", "put-production")
    client().set_registered_model_alias("put-production", "champion", "1")
    client().delete_registered_model_alias("put-twin", "challenger")
    found = announced(monkeypatch, client())
    version = put_up_for_review("put-twin", logged, "a" * 64, {}, "a card", champion_model="put-production")
    assert (version.standing, found) == ("not up for review", [])


def test_a_former_champion_may_be_put_up_again(logged):
    put_up_for_review("put-former", logged, "a" * 64, {}, "a card")
    client().set_model_version_tag("put-former", "1", "review.status", "approved")
    client().delete_registered_model_alias("put-former", "challenger")
    assert put_up_for_review("put-former", logged, "a" * 64, {}, "a card").aliases == ("challenger",)


def test_a_description_may_be_made_of_the_number(logged):
    for digest in ("a" * 64, "b" * 64, "a" * 64):
        put_up_for_review("put-number", logged, digest, {}, lambda number: f"models:/put-number/{number}")
    assert numbers("put-number") == {"1", "2"}
    for number in ("1", "2"):
        assert client().get_model_version("put-number", number).description == f"models:/put-number/{number}"


def test_a_description_is_cut_at_what_the_registry_takes(logged):
    put_up_for_review("put-long", logged, "a" * 64, {}, "x" * 9000)
    assert len(client().get_model_version("put-long", "1").description) == 5000


def test_no_champion_without_a_model_or_without_the_alias(logged):
    assert find_champion("put-nobody") == Champion(model="put-nobody")
    put_up_for_review("put-uncrowned", logged, "a" * 64, {}, "a card")
    assert find_champion("put-uncrowned") == Champion(model="put-uncrowned")


def test_a_model_without_a_description_gets_one_and_keeps_it(logged):
    put_up_for_review("put-described", logged, "a" * 64, {}, "a card", about="what it is")
    assert client().get_registered_model("put-described").description == "what it is"
    client().update_registered_model("put-described", "by hand")
    put_up_for_review("put-described", logged, "b" * 64, {}, "a card", about="what it is")
    assert client().get_registered_model("put-described").description == "by hand"
