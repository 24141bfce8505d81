"""The ledger of looks in a real store, and in a server that several ask at once."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest

from components.shared.errors import UserError
from components.shared.registry import ledger as module
from components.shared.registry.ledger import KEY, SKETCH_SIZE, RegistryLedger, Sketch
from tests.helpers.servers import mlflow_server

OPTIONS = {"alpha": 0.05, "min_gain": 0.02}


@pytest.fixture(autouse=True)
def experiment(request, monkeypatch, tracking_uri):
    """A ledger of its own for each test."""
    name = "looks-" + re.sub(r"\W+", "-", request.node.name)
    monkeypatch.setattr(module, "EXPERIMENT", name)
    return name


def client():
    import mlflow

    return mlflow.MlflowClient()


def images(n: int, start: int = 0) -> np.ndarray:
    """Digests of so many images; the same numbers are the same images."""
    return np.random.default_rng(7).integers(0, 2**64, 100_000, dtype=np.uint64)[start : start + n]


def look(key: str, at: np.ndarray, **options: object) -> int:
    return RegistryLedger().claim(key, at, {**OPTIONS, **options}).place


def claims(experiment: str) -> list:
    from mlflow.entities import ViewType

    found = client().get_experiment_by_name(experiment)
    return client().search_runs([found.experiment_id], run_view_type=ViewType.ALL)


def test_looks_are_numbered_and_the_same_look_keeps_its_number(experiment):
    tonight = images(300)
    assert RegistryLedger().expected("a", tonight) == 1
    assert [look(key, tonight) for key in "abaca"] == [1, 2, 1, 3, 1]
    assert [RegistryLedger().expected(key, tonight) for key in "abcd"] == [1, 2, 3, 4]
    assert len(claims(experiment)) == 3
    assert {run.info.status for run in claims(experiment)} == {"FINISHED"}


def test_other_images_are_another_matter_and_a_shared_tenth_is_not():
    look("a", images(1000))
    look("b", images(1000))
    assert look("c", images(1000, start=1000)) == 1
    assert look("d", images(1000, start=2901)) == 1
    assert look("e", images(1000, start=3801)) == 2, "100 of 1,000 are those of d"
    assert look("f", images(1000, start=4702)) == 1, "99 of 1,000 are those of e"
    assert look("g", images(100, start=500)) == 3, "all of a small set are those of a and b"


def test_more_images_than_a_sketch_holds():
    n = 4 * SKETCH_SIZE
    look("a", images(n))
    assert look("other", images(n, start=n)) == 1
    assert look("half", images(n, start=n // 2)) == 3
    assert look("fifth", images(n, start=8 * n // 10)) >= 2
    assert not Sketch.of(images(n)).shares(Sketch.of(images(n, start=98 * n // 100)))
    assert Sketch.of(images(n)).shares(Sketch.of(images(200, start=100)))


def test_a_tenth_is_found_by_sketches_too():
    """What two sketches can't tell for sure counts as shared."""
    n = 4 * SKETCH_SIZE
    for start in range(0, 50_000, 5000):
        ours, theirs = images(n, start), images(n, start + 9 * n // 10)
        assert Sketch.of(ours).shares(Sketch.of(theirs)), start


def test_a_sketch_survives_its_tags_and_knows_copies():
    for n in (1, 599, 601, SKETCH_SIZE + 1):
        sketch = Sketch.of(np.concatenate([images(n), images(n)[:1]]))
        assert sketch.size == n
        tags = sketch.tags()
        assert max(map(len, tags.values())) <= 5000
        read = Sketch.read(tags)
        assert (read.size, read.hashes.tolist()) == (n, sketch.hashes.tolist())
        assert read.shares(sketch)


def test_deleted_looks_count(experiment):
    tonight = images(100)
    look("a", tonight)
    client().delete_run(claims(experiment)[0].info.run_id)
    assert look("b", tonight) == 2
    assert look("a", tonight) == 1


@pytest.mark.parametrize("tag", ["look.sketch.0", "look.images"])
def test_a_look_that_somebody_changed_counts_whatever_it_was_about(experiment, tag):
    look("a", images(100))
    client().set_tag(claims(experiment)[0].info.run_id, tag, "0")
    assert look("b", images(100, start=500)) == 2


def test_a_claim_that_was_never_counted_is_counted_again(experiment):
    tonight = images(100)
    for key in "ab":
        look(key, tonight)
    (run,) = (run for run in claims(experiment) if run.data.tags[KEY] == "a")
    client().delete_tag(run.info.run_id, "look.place")
    assert look("a", tonight) == 2, "that of b may have come first"


def test_other_options_are_told_and_are_the_same_look():
    tonight = images(100)
    assert not RegistryLedger().claim("a", tonight, OPTIONS).options_changed
    assert not RegistryLedger().claim("a", tonight, OPTIONS).options_changed
    changed = RegistryLedger().claim("a", tonight, {**OPTIONS, "min_gain": 0.0})
    assert (changed.place, changed.options_changed) == (1, True)
    assert look("b", tonight, min_gain=0.0) == 2
    assert RegistryLedger().claim("a", tonight, OPTIONS).options_changed


def test_a_store_that_is_away_is_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for ask in (lambda: RegistryLedger().expected("a", images(10)), lambda: look("a", images(10))):
        with pytest.raises(UserError, match=r"127\.0\.0\.1:9") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_deleted_ledger_is_no_empty_one(experiment):
    tonight = images(100)
    look("a", tonight)
    client().delete_experiment(client().get_experiment_by_name(experiment).experiment_id)
    with pytest.raises(UserError, match=experiment):
        look("b", tonight)


def at_once(keys: str, at: np.ndarray) -> list[int]:
    start, places = threading.Barrier(len(keys), timeout=60), []

    def claim(key: str) -> None:
        start.wait()
        places.append(look(key, at))

    threads = [threading.Thread(target=claim, args=(key,)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(places)


@pytest.mark.slow
def test_of_several_at_once_each_counts_at_least_its_place(tmp_path, monkeypatch, capsys):
    with mlflow_server(tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        for round_ in range(5):
            tonight = images(100, start=100 * round_)
            places = at_once("abcd", tonight)
            assert len(places) == 4
            assert all(place >= rank for rank, place in enumerate(places, start=1)), places
            assert max(places) == 4
            assert [look(key, tonight) for key in "abcd"] == [look(key, tonight) for key in "abcd"]
            assert at_once("eeee", tonight) == [5, 5, 5, 5]
    assert capsys.readouterr().out == ""
