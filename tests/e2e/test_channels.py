"""Grey images and images of four channels through all steps, from files to predictions, in one process."""

from __future__ import annotations

import json
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.whole_runs import JUDGED, run
from components.shared.artifacts import Dataset
from components.shared.registry.infra_validation import validate_infrastructure
from components.shared.registry.logged_model import log_classifier
from pipelines.__main__ import main
from tests.helpers.datasets import PATTERNS, make_arrays
from tests.helpers.image_trees import encode, picture
from tests.helpers.repository import make_root

pytestmark = pytest.mark.slow

SIZE, CLASSES = 16, 3
COUNTS = {"unlabelled": 60, "train": 45, "validation": 15, "test": 60}
SMALL = (
    "data=folder", "data.name=own", f"data.image_size={SIZE}", "augmentation=any_channels",
    "data.near_copies=keep",  # few patterns: many textures are alike
    "encoder.width=8", "runtime.epochs=1", "runtime.replicates=[0]",
    "supervised.search.epochs=[1]", "supervised.search.learning_rates=[1e-3]",
    "supervised.search.weight_decays=[1e-4]", "supervised.search.widen=0", "probe.label_budgets=[1,2]",
)  # fmt: skip


def write_images(root, channels):
    """Textures as files, in their folders; returns name → pixels."""
    found = {}
    for split, (images, labels) in make_arrays(COUNTS, image_size=SIZE, channels=channels).items():
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = split if split == "unlabelled" else f"{split}/{list(PATTERNS)[label]}"
            path = root / place / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(image[..., 0] if channels == 1 else image))
            found[str(path.relative_to(root))] = image
    return found


@pytest.fixture(scope="module", params=[1, 4], ids=["grey", "four"])
def trained(request, tmp_path_factory):
    """After all steps up to the verdict."""
    root, channels = make_root(tmp_path_factory.mktemp("channels")), request.param
    files = write_images(root / "own" / "images", channels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")  # the run sets its own
        found = run([*SMALL, f"data.path={root}/own/images", f"data.channels={channels}"], root)
    return SimpleNamespace(root=root, channels=channels, files=files, seconds=found["seconds"])


@pytest.fixture
def project(trained, monkeypatch):
    """The same, as the folder to work in."""
    monkeypatch.chdir(trained.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained.root}/mlflow.db")
    return trained


def test_every_stage_ran_and_the_arrays_hold_what_the_files_do(project):
    assert tuple(project.seconds) == JUDGED
    dataset = Dataset(project.root / "dataset")
    assert dataset.manifest.channels == project.channels
    for split in COUNTS:
        images, files = dataset.images(split), dataset.files(split)
        assert images.shape[1:] == (SIZE, SIZE, project.channels)
        for image, path in zip(images, files["path"], strict=True):
            np.testing.assert_array_equal(image, project.files[path])


def test_the_networks_take_these_channels_and_the_evaluation_is_whole(project):
    for name in ("encoder/encoder.keras", "baseline/classifier.keras", "finetune/classifier.keras"):
        network = keras.saving.load_model(project.root / name, compile=False)
        assert network.input_shape == (None, None, None, project.channels)
    blessing = json.loads((project.root / "evaluation" / "blessing.json").read_text())
    assert isinstance(blessing["blessed"], bool)
    assert "16×16 pixels, " in (project.root / "evaluation" / "report.html").read_text()
    for name in ("dataset/samples.png", "encoder/views.png", "probe/neighbours.png"):
        with Image.open(project.root / name) as shown:
            assert np.asarray(shown).std() > 1


def test_predictions_of_files_are_those_of_the_dataset(project):
    command = ["predict", "own/images/test", "--model", "finetune/classifier.keras", "--out", "predictions.csv"]
    assert not main(command)
    table = pd.read_csv(project.root / "predictions.csv").set_index("path")
    dataset = Dataset(project.root / "dataset")
    network = keras.saving.load_model(project.root / "finetune" / "classifier.keras", compile=False)
    answers = network.predict(np.asarray(dataset.images("test")), verbose=0)
    assert len(table) == len(answers)
    for path, answer in zip(dataset.files("test")["path"], answers, strict=True):
        assert table.loc[f"own/images/{path}", "probability"] == pytest.approx(answer.max(), abs=1e-4)


def test_features_neighbours_and_proposals_are_made_of_files(project, capsys):
    images = "own/images/test"
    assert not main(["embed", images, "--out", "features.parquet"])
    assert "60 rows" in capsys.readouterr().out
    query = f"{images}/{next(iter(PATTERNS))}"
    first = sorted((project.root / query).iterdir())[0].name
    assert not main(["similar", f"{query}/{first}", images])
    assert "nearest of 60 images" in capsys.readouterr().out
    assert not main(["label", "next", "3", "--dataset", "dataset", "--out", "next.csv"])
    assert "3 of 60 unlabelled images" in capsys.readouterr().out


def test_an_image_of_other_channels_is_named_or_read_as_grey(project, capsys):
    (project.root / "rgb.png").write_bytes(encode(picture("rgb", SIZE)))
    status = main(["predict", "rgb.png", "--model", "finetune/classifier.keras"])
    told = capsys.readouterr()
    if project.channels == 1:
        assert not status and told.out.split()[0] == "rgb.png"
    else:
        assert status == 1
        assert "rgb.png: can't be read as an image: it has 3 channels (RGB), and four are asked for" in told.err


def test_a_registered_model_is_served_and_refuses_other_images(project, tracking_uri, in_tmp):
    import mlflow

    dataset = Dataset(project.root / "dataset")
    path = project.root / "finetune" / "classifier.keras"
    mlflow.set_tracking_uri(tracking_uri)
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment(f"channels {project.channels}")).info.run_id
    uri = log_classifier(path, dataset, run)
    images = np.asarray(dataset.images("test"))[:8]
    expected = keras.saving.load_model(path, compile=False).predict(images, verbose=0)
    found = validate_infrastructure(uri, images, expected, {"MLFLOW_TRACKING_URI": tracking_uri})
    assert (found["compared_images"], found["refused_requests"]) == (8, 7)
