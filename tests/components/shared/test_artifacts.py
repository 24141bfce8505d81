"""Output folders are whole or not there; records, datasets and predictions say what is wrong with them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from components.shared.artifacts import (
    Dataset,
    Manifest,
    Result,
    input_digest,
    output_folder,
    read_record,
    replace_file,
    require_writable,
    save_array,
    save_predictions,
    write_record,
)
from components.shared.errors import UserError
from tests.helpers.datasets import make_dataset
from tests.helpers.repository import ROOT


def result(**changes):
    fields = {
        "step": "probe",
        "params": {"runtime": {"seed": 0}},
        "params_digest": "p",
        "inputs": {"dataset": "d"},
        "seconds": 1.5,
        "mlflow_run_id": "run",
        "dataset_digest": "d",
        "metrics": {"test_accuracy": 0.5},
    }
    return Result(**{**fields, **changes})


def write_whole(out, text="new"):
    with output_folder(out) as folder:
        (folder / "file").write_text(text)
        write_record(folder, result())


def beside(out):
    """Everything in the parent folder but `out` itself."""
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    out = tmp_path / "probe"
    with output_folder(out) as folder:
        (folder / "file").write_text("new")
        assert not out.exists()
    assert (out / "file").read_text() == "new"
    assert beside(out) == []


def test_parents_are_created(tmp_path):
    write_whole(tmp_path / "a" / "b" / "probe")
    assert (tmp_path / "a" / "b" / "probe" / "file").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, UserError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(tmp_path, error):
    out = tmp_path / "probe"
    with pytest.raises(error), output_folder(out) as folder:
        (folder / "result.json").write_text("half")
        raise error("stop")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_folder_as_it_was(tmp_path):
    out = tmp_path / "probe"
    write_whole(out, "old")
    with pytest.raises(RuntimeError), output_folder(out) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert (out / "file").read_text() == "old"
    assert beside(out) == []


def test_success_replaces_the_old_folder_and_its_files(tmp_path):
    out = tmp_path / "probe"
    write_whole(out, "old")
    (out / "of the old run").write_text("")
    write_whole(out, "new")
    assert sorted(path.name for path in out.iterdir()) == ["file", "result.json"]
    assert (out / "file").read_text() == "new"
    assert beside(out) == []


def test_what_a_killed_run_left_is_removed_and_not_mixed_in(tmp_path):
    out = tmp_path / "probe"
    for name in (".probe.partial", ".probe.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale").write_text("half")
    write_whole(out)
    assert not (out / "stale").exists()
    assert beside(out) == []


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "cat.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"pictures: exists and was not written by a step"), output_folder(pictures):
        pass
    assert (pictures / "cat.jpg").read_text() == "mine"


def test_a_file_in_the_way_is_not_replaced(tmp_path):
    (tmp_path / "probe").write_text("mine")
    with pytest.raises(UserError, match=r"probe: exists and was not written by a step"):
        write_whole(tmp_path / "probe")
    assert (tmp_path / "probe").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "probe").mkdir()
    write_whole(tmp_path / "probe")
    assert (tmp_path / "probe" / "file").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"probe: can't be written: Not a directory; check the path"):
        write_whole(tmp_path / "file" / "probe")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(tmp_path):
    refused = pytest.raises(UserError, match=r"probe: No space left on device; nothing is left; make room")
    with refused, output_folder(tmp_path / "probe"), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"0")
    assert list(tmp_path.iterdir()) == []


@contextmanager
def as_owner():
    """The user that the tests began as."""
    now = os.geteuid()
    os.seteuid(os.getuid())
    try:
        yield
    finally:
        os.seteuid(now)


@pytest.fixture
def foreign():
    """A folder that belongs to somebody else, as a new volume does to root."""
    before = os.geteuid()
    # pytest's own folders are closed to others
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "cache"
        folder.mkdir(0o555)
        if before == 0:  # who may write everywhere
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(before)
            folder.chmod(0o755)


def test_a_folder_of_somebody_else_is_refused_with_what_helps_in_a_cluster(foreign):
    with pytest.raises(UserError) as caught:
        require_writable(foreign / "pretrain", "the state of the training")
    said = str(caught.value)
    assert said.startswith(f"{foreign}/pretrain: the state of the training can't be written there (user ")
    assert f"may not write {foreign}); let its volume belong to group 0 with mode 0770" in said
    assert "\n" not in said


def test_a_folder_that_is_still_to_be_made_may_be_written(tmp_path):
    require_writable(tmp_path / "a" / "b", "anything")
    assert not (tmp_path / "a").exists()


WRITER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from components.shared.artifacts import output_folder
    with output_folder(Path(sys.argv[1])) as folder:
        (folder / "result.json").write_text("{}")
        print("writing", flush=True)
        time.sleep(60)
    """
)


@pytest.fixture
def writer(tmp_path):
    """A process that is in the middle of writing tmp_path/probe."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "probe")], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_killed_while_writing_leaves_no_finished_folder_and_the_next_run_goes_on(tmp_path, writer):
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not (tmp_path / "probe").exists()
    write_whole(tmp_path / "probe")
    assert (tmp_path / "probe" / "file").read_text() == "new"
    assert beside(tmp_path / "probe") == []


def test_two_processes_do_not_write_the_same_folder(tmp_path, writer):
    with pytest.raises(UserError, match="another process is writing it"):
        write_whole(tmp_path / "probe")
    assert writer.poll() is None
    assert (tmp_path / ".probe.partial" / "result.json").exists()


def test_a_record_is_read_back_alike(tmp_path):
    write_record(tmp_path, result(details={"exported_seed": 1}))
    assert read_record(tmp_path, Result) == result(details={"exported_seed": 1})


def test_numbers_that_are_not_finite_survive_a_record(tmp_path):
    write_record(tmp_path, result(metrics={"loss": float("nan"), "gain": -float("inf")}))
    metrics = read_record(tmp_path, Result).metrics
    assert np.isnan(metrics["loss"])
    assert metrics["gain"] == -float("inf")


def test_a_missing_record_says_which_step_to_run(tmp_path):
    with pytest.raises(UserError, match=r"probe/result\.json: missing; run the step that writes probe/ first"):
        read_record(tmp_path / "probe", Result)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"result\.json: content: "),
        (b'{"step": ', r"result\.json: content: "),
        (b"\xff\xfe\x00", r"result\.json: content: "),
        (b"[]", r"result\.json: content: "),
        (b"{}", r"result\.json: step: field required; run the step that writes"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, content, message):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_record(tmp_path, Result)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize(("field", "value"), [("schema_version", 2), ("seconds", "long"), ("unheard_of", 1)])
def test_a_record_of_another_version_is_refused_with_the_field(tmp_path, field, value):
    written = json.loads(result().model_dump_json())
    (tmp_path / "result.json").write_text(json.dumps({**written, field: value}))
    with pytest.raises(UserError, match=rf"result\.json: {field}: .*; run the step that writes"):
        read_record(tmp_path, Result)


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path / "dataset", unlabelled=4, train=6, validation=3, test=3)


def test_images_stay_on_disk_and_cannot_be_changed(dataset):
    images = Dataset(dataset).images("train")
    assert isinstance(images, np.memmap)
    assert images.shape == (6, 32, 32, 3)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_the_digest_has_a_file_of_its_own(dataset):
    assert (dataset / "digest.txt").read_text().strip() == read_record(dataset, Manifest).digest
    assert input_digest(dataset) == read_record(dataset, Manifest).digest


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path):
    with pytest.raises(
        UserError, match=r"dataset/manifest\.json: missing; run the step that writes dataset/ first"
    ):
        Dataset(tmp_path / "dataset")


def test_a_missing_array_is_named(dataset):
    (dataset / "test.labels.npy").unlink()
    with pytest.raises(UserError, match=r"test\.labels\.npy: missing; run the ingest step again"):
        Dataset(dataset).labels("test")


@pytest.mark.parametrize("keep", [0, 20, 1000])
def test_a_cut_array_is_named(dataset, keep):
    path = dataset / "train.images.npy"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"train\.images\.npy: not a NumPy array: .*; run the ingest step again"):
        Dataset(dataset).images("train")


def test_an_array_of_objects_is_not_unpickled(dataset):
    np.save(dataset / "train.labels.npy", np.array([{}, "x"], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"train\.labels\.npy: not a NumPy array"):
        Dataset(dataset).labels("train")


def test_a_wrong_number_of_rows_is_named_with_both_numbers(dataset):
    save_array(dataset / "train.labels.npy", np.zeros(5, np.int64))
    with pytest.raises(UserError, match=r"train\.labels\.npy: 5 rows where manifest\.json says 6"):
        Dataset(dataset).labels("train")


def test_images_of_another_type_or_size_are_refused(dataset):
    save_array(dataset / "train.images.npy", np.zeros((6, 32, 32, 3), np.float32))
    with pytest.raises(UserError, match=r"train\.images\.npy: float32 .*; expected uint8 \(N, 32, 32, 3\)"):
        Dataset(dataset).images("train")


def test_the_digest_of_a_models_folder_follows_its_models_only(tmp_path):
    (tmp_path / "encoder.keras").write_text("weights")
    before = input_digest(tmp_path)
    (tmp_path / "curves.csv").write_text("epoch,loss\n")
    assert input_digest(tmp_path) == before
    (tmp_path / "encoder.keras").write_text("other weights")
    assert input_digest(tmp_path) != before


def test_predictions_repeat_the_test_split_under_short_names(tmp_path):
    rng = np.random.default_rng(0)
    splits = {
        "validation": (rng.dirichlet(np.ones(4), (3, 5)), rng.integers(0, 4, 5)),
        "test": (rng.dirichlet(np.ones(4), (3, 7)), rng.integers(0, 4, 7)),
    }
    save_predictions(tmp_path / "predictions.npz", splits)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as stored:
        assert stored["validation_probabilities"].shape == (3, 5, 4)
        assert stored["test_probabilities"].dtype == np.float32
        assert stored["test_labels"].dtype == np.int64
        np.testing.assert_array_equal(stored["probabilities"], stored["test_probabilities"])
        np.testing.assert_array_equal(stored["labels"], splits["test"][1])


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "state"
    replace_file(path, b"first")
    replace_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_several_may_write_a_file_at_once_and_none_ends_another(tmp_path):
    path, contents = tmp_path / "state", [bytes([number]) * 100_000 for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: replace_file(path, contents[number % 4]), range(200)))
    assert path.read_bytes() in contents
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_writer_left_goes_with_the_next_and_what_a_living_one_writes_stays(tmp_path):
    dead, living = tmp_path / ".state.0.partial", tmp_path / ".state.1.partial"
    dead.write_bytes(b"half")
    with living.open("xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        replace_file(tmp_path / "state", b"whole")
        assert {entry.name for entry in tmp_path.iterdir()} == {"state", living.name}
    replace_file(tmp_path / "state", b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_file_that_can_not_be_written_leaves_nothing(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "state", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_a_folder_that_is_closed_to_others_is_refused_in_one_line(foreign):
    # without the right to look into it, it is not even known what is there
    with as_owner():
        foreign.chmod(0o600)
    with pytest.raises(UserError, match=r"cache/probe: can't be written: Permission denied; check the path"):
        write_whole(foreign / "probe")
