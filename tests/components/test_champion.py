"""Asking who is champion: of a real registry, and of one that does not answer."""

from __future__ import annotations

import pytest

from components.champion import champion
from components.shared.errors import UserError
from components.shared.evaluation.champion import Accepted, Champion, read_champion
from components.shared.params.schema import select


@pytest.fixture
def ask(in_tmp, compose_params, tracking_uri):
    """A function that asks for the champion of a model, and returns the record's bytes too."""

    def _ask(*overrides):
        found = champion(in_tmp / "champion", select(compose_params(*overrides), "champion"))
        assert read_champion(in_tmp / "champion") == found
        return found, (in_tmp / "champion" / "champion.json").read_bytes()

    return _ask


def crown(name, source, **tags):
    """Make a version of a registered model champion."""
    import mlflow

    client = mlflow.MlflowClient()
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, source.as_uri(), tags=tags).version
    client.set_registered_model_alias(name, "champion", version)


def test_the_record_changes_with_the_champion_and_with_nothing_else(ask, in_tmp):
    none, first = ask("registry.model_name=rising")
    assert none == Champion(model="rising")
    assert ask("registry.model_name=rising") == (none, first)
    crown("rising", in_tmp, test_accuracy="0.9", artifact_digest="a" * 64)
    found, second = ask("registry.model_name=rising")
    first_one = {"version": "1", "artifact_digest": "a" * 64, "uri": "models:/rising/1", "stored": False}
    assert found.model_dump() == {
        "schema_version": 1,
        "model": "rising",
        "version": "1",
        "artifact_digest": "a" * 64,
        "accepted": [first_one],
        "unavailable": None,
    }
    assert ask("registry.model_name=rising") == (found, second)
    crown("rising", in_tmp)
    second_one = Accepted(version="2", uri="models:/rising/2", stored=False)
    assert ask("registry.model_name=rising")[0] == Champion(model="rising", version="2", accepted=[second_one])
    assert [path.name for path in (in_tmp / "champion").iterdir()] == ["champion.json"]


def test_a_champion_whose_files_come_back_is_another_record(ask, in_tmp):
    model = in_tmp / "model"
    model.mkdir()
    (model / "MLmodel").write_text("flavors: {}\n")
    crown("stored", model)
    found, there = ask("registry.model_name=stored")
    assert found.accepted[0].stored
    model.rename(in_tmp / "away")
    found, gone = ask("registry.model_name=stored")
    assert not found.accepted[0].stored and gone != there
    (in_tmp / "away").rename(model)
    assert ask("registry.model_name=stored")[1] == there


def test_those_before_count_unless_a_reviewer_decided_against_them(ask, in_tmp):
    import mlflow

    client = mlflow.MlflowClient()
    for status in ("approved", "rejected", "withdrawn", "rolled back", None, "approved"):
        crown("line", in_tmp, **({"review.status": status} if status else {}))
    client.set_registered_model_alias("line", "previous-champion", "5")
    found, _ = ask("registry.model_name=line")
    assert found.version == "6"
    assert [model.version for model in found.accepted] == ["6", "5", "1"]
    client.delete_registered_model_alias("line", "champion")
    found, _ = ask("registry.model_name=line")
    assert found.version is None
    assert [model.version for model in found.accepted] == ["6", "5", "1"]


def test_the_champion_of_the_production_model_counts(ask, in_tmp):
    crown("shadow", in_tmp)
    crown("shadow-production", in_tmp)
    crown("shadow-production", in_tmp)
    found, _ = ask("registry.model_name=shadow", "registry.production_model=shadow-production")
    assert (found.model, found.version) == ("shadow-production", "2")


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_a_registry_that_is_away_is_written_down(ask, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    found, record = ask()
    assert "127.0.0.1:9" in found.unavailable and "\n" not in found.unavailable
    assert found.version is None
    assert ask()[1] == record


def test_a_folder_of_something_else_is_not_replaced(ask, in_tmp):
    (in_tmp / "champion").mkdir()
    (in_tmp / "champion" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="was not written by a step"):
        ask()
