"""Models pushed to a server that speaks the Hugging Face Hub's endpoints: what arrives, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.shared.digests import file_digest
from components.shared.errors import UserError
from components.shared.registry.signature import MODEL_FILE
from components.shared.registry.versions import put_up_for_review
from components.shared.tracking.client import connect, experiment_id
from pipelines.__main__ import main
from pipelines.inference.model import load_ready
from tests.helpers.hub import TOKEN, Hub, Repository, front_matter, hub_server
from tests.helpers.image_trees import picture
from tests.helpers.repository import ROOT, make_root

pytest.importorskip("huggingface_hub", reason="the extra `hub` has it")

NAME, SIZE, CLASSES = "pushed", 16, ["dots", "rings", "waves"]
TAGS = {
    "verdict": "blessed",
    "winner": "finetune",
    "dataset": "photos",
    "test_accuracy": "0.855",
    "method": "simclr",
    "details": '{"test_accuracy_interval": "0.837 0.874", "confidence": "0.98", "encoder": "conv"}',
}
CARD = """**Blessed: +7.1 points**

### Numbers
| test accuracy | model |
|---|---|
| 85.5 % | this file alone |

### Call
mlflow.pyfunc.load_model("models:/pushed/1")

### Runs
[evaluate](https://mlflow.internal/#/experiments/1), train"""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A small classifier of images of any size, as the pipeline exports them."""
    import keras

    path = tmp_path_factory.mktemp("model") / "classifier.keras"
    images = keras.Input((None, None, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(keras.layers.Resizing(SIZE, SIZE)(images))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(scaled))
    keras.Model(images, keras.layers.Dense(3, activation="softmax")(pooled)).save(path)
    path.with_name("classifier.keras.json").write_text(json.dumps({"class_names": CLASSES}))
    return path


@pytest.fixture(scope="module")
def registry(tracking_uri, classifier, tmp_path_factory):
    """Two versions of one model: a champion, and another one; returns the folder of the repository."""
    import keras
    import mlflow

    root = make_root(tmp_path_factory.mktemp("place"))
    connect()
    client = mlflow.MlflowClient()
    network = keras.saving.load_model(classifier)
    for number, tags in (("1", TAGS), ("2", {"verdict": "blessed"}), ("3", {})):
        network.layers[-1].bias.assign(np.full(3, 0.1 * int(number)))
        with mlflow.start_run(experiment_id=experiment_id(NAME)):
            logged = mlflow.keras.log_model(
                network, name="classifier", metadata={"class_names": CLASSES}, pip_requirements=[]
            )
        kept = Path(mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=str(root / number)))
        put_up_for_review(NAME, logged.model_uri, file_digest(kept / MODEL_FILE), tags, CARD)
    client.set_registered_model_alias(NAME, "champion", "1")
    return root


@pytest.fixture
def hub(monkeypatch, registry):
    """A running server that the client in this process takes for the Hub."""
    monkeypatch.chdir(registry)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_server() as running:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", running.url)
        # its own protocol for large files needs a storage of its own
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield running


def push(*arguments: object) -> None:
    main(["push", *map(str, arguments)])


def pushed(hub: Hub, name: str = "acme/photos") -> dict[str, bytes]:
    (_,) = hub.repositories[name].commits
    return hub.repositories[name].files


def test_a_champion_arrives_with_its_card_in_one_commit(hub, registry, tmp_path, capsys):
    from huggingface_hub import ModelCard

    push(f"models:/{NAME}@champion", "hf://acme/photos", "--license", "apache-2.0")
    out = capsys.readouterr().out
    assert out.startswith(f"{hub.url}/acme/photos: {NAME} version 1, champion, private; commit ")
    repository = hub.repositories["acme/photos"]
    assert repository.private
    assert repository.commits == [f"Push {NAME} version 1, champion"]
    files = pushed(hub)
    assert sorted(files) == [
        *("README.md", "config.json", "metadata.json", "model.keras", "model.keras.json", "model.weights.h5")
    ]
    assert files["model.keras"] == next((registry / "1").rglob("model.keras")).read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert card.data.library_name == "keras"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.license == "apache-2.0"
    assert card.data.tags == ["contrastive-learning", "simclr", "conv"]
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("photos", "test")
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.855)
    assert result.metric_name == "test accuracy, 98 % interval 83.7 to 87.4 %"
    assert "85.5 % | this file alone" in card.text
    assert "takes uint8 images (N, height, width, 3; RGB, 0 to 255) and gives class probabilities;" in card.text
    # addresses of the registry say nothing to the Hub's readers, and may be secret
    assert "mlflow" not in card.text
    assert "champion" not in card.text.lower()
    described = json.loads(files["model.keras.json"])
    assert described["class_names"] == CLASSES
    assert described["takes"] == {"shape": [None, None, None, 3], "dtype": "uint8", "values": "RGB, 0 to 255"}
    for name in ("model.keras", "model.keras.json"):
        (tmp_path / name).write_bytes(files[name])
    assert load_ready(str(tmp_path / "model.keras")).class_names == CLASSES


@pytest.mark.slow
def test_what_was_pushed_is_what_keras_loads(hub, classifier, tmp_path):
    """The Hub's own snippet, in a process of its own that knows the Hub by the environment alone."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    program = f"""
import sys
import numpy as np
from pipelines.__main__ import main
main(["push", {str(classifier)!r}, "hf://acme/photos"])
import keras
model = keras.saving.load_model("hf://acme/photos")
np.save(sys.argv[1], model.predict(np.load(sys.argv[2]), verbose=0))
"""
    images = np.stack([picture(name, (20, 30)) for name in "ab"])
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "answers.npy", tmp_path / "images.npy"],
        **dict(cwd=ROOT, env=environment, capture_output=True, text=True, check=False),
    )
    assert done.returncode == 0, done.stderr
    expected = load_ready(str(classifier)).network.predict(images, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "answers.npy"), expected, atol=1e-6)


def test_what_is_no_champion_says_so_first(hub, classifier, capsys):
    push(f"models:/{NAME}/3", "hf://acme/photos", "--public")
    text = pushed(hub)["README.md"].decode().split("---\n")[2]
    assert f"> **Not the champion: {NAME} version 3 is challenger in its registry.**" in text
    assert "> **No verdict of the gate is known that blessed this model.**" in text
    assert text.index("> **") < text.index("Blessed")
    assert "model-index" not in front_matter(pushed(hub)["README.md"])
    assert not hub.repositories["acme/photos"].private
    assert "version 3, no champion (challenger), public; commit" in capsys.readouterr().out
    push(classifier, "hf://acme/file")
    text = pushed(hub, "acme/file")["README.md"].decode()
    assert "> **Not from a registry: whether this model passed the gate or a review is not known.**" in text
    assert "license" not in front_matter(text.encode())


def test_an_encoder_is_no_classifier(hub, classifier, tmp_path):
    import keras

    network = keras.saving.load_model(classifier)
    keras.Model(network.inputs, network.layers[-2].output).save(tmp_path / "encoder.keras")
    push(tmp_path / "encoder.keras", "hf://acme/encoder")
    files = pushed(hub, "acme/encoder")
    assert front_matter(files["README.md"])["pipeline_tag"] == "image-feature-extraction"
    assert json.loads(files["model.keras.json"])["gives"] == "4 features"


def test_the_champion_that_counts_is_the_production_model_s(hub, registry):
    """An alias on the model that versions are put up in does not count beside a production model."""
    import mlflow

    from components.shared.params.composing import compose_params, write_params

    options = [f"registry.model_name={NAME}", f"registry.production_model={NAME}-production"]
    write_params(compose_params(options)[1], Path("params.yaml"))
    try:
        push(f"models:/{NAME}@champion", "hf://acme/one")
        assert hub.repositories["acme/one"].commits == [f"Push {NAME} version 1, no champion (not up for review)"]
        client = mlflow.MlflowClient()
        client.copy_model_version(f"models:/{NAME}/1", f"{NAME}-production")
        client.set_registered_model_alias(f"{NAME}-production", "champion", "1")
        push(f"models:/{NAME}/1", "hf://acme/two")
        push(f"models:/{NAME}-production@champion", "hf://acme/three")
    finally:
        Path("params.yaml").unlink()
    assert hub.repositories["acme/two"].commits == [f"Push {NAME} version 1, champion"]
    assert hub.repositories["acme/three"].commits == [f"Push {NAME}-production version 1, champion"]


def test_a_dry_run_shows_all_and_sends_nothing(hub, monkeypatch, capsys):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", "nowhere")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nowhere")
    push(f"models:/{NAME}@champion", "hf://acme/photos", "--dry-run")
    out = capsys.readouterr().out
    assert out.startswith("---\nlibrary_name: keras\n")
    assert "model.keras: " in out
    assert out.endswith(f"nothing was sent; {NAME} version 1, champion, would be private\n")
    assert hub.requests == []


def test_a_push_again_replaces_what_was_pushed(hub):
    push(f"models:/{NAME}/3", "hf://acme/photos")
    push(f"models:/{NAME}@champion", "hf://acme/photos")
    repository = hub.repositories["acme/photos"]
    assert len(repository.commits) == 2
    assert "Not the champion" not in repository.files["README.md"].decode()


@pytest.mark.parametrize(
    ("private", "options", "words"), [(False, [], "is public"), (True, ["--public"], "is private")]
)
def test_an_existing_repository_keeps_who_may_see_it(hub, classifier, private, options, words):
    hub.repositories["acme/photos"] = Repository(private)
    with pytest.raises(UserError, match=f"acme/photos: {words}, and the push is with.*nothing was committed"):
        push(classifier, "hf://acme/photos", *options)
    assert hub.repositories["acme/photos"].files == {}


@pytest.mark.parametrize(
    ("refused", "status", "words"),
    [
        ("POST /api/repos/create", 403, r"may not write there \(403\)"),
        ("POST /api/repos/create", 404, r"no such owner or repository \(404\)"),
        ("POST .*/commit/main", 403, r"nothing was committed to the new repository.* empty: .*write there \(403\)"),
        ("PUT /large/", 400, "the new repository, which is there, empty: Error while uploading"),
    ],
)
def test_what_the_hub_refuses_is_told(hub, classifier, refused, status, words):
    hub.refused = {refused: status}
    with pytest.raises(UserError, match=words):
        push(classifier, "hf://acme/photos")
    assert not any(repository.commits for repository in hub.repositories.values())


def test_a_token_that_is_not_accepted_is_told_and_not_shown(hub, classifier, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(
        UserError, match=r"acme/photos: nothing was committed: the token is not accepted \(401\)"
    ) as told:
        push(classifier, "hf://acme/photos")
    assert "hf_wrong" not in str(told.value)


def test_a_licence_that_the_hub_does_not_know_is_told_before_files_are_sent(hub, classifier):
    with pytest.raises(UserError, match=r"Invalid metadata in README\.md"):
        push(classifier, "hf://acme/photos", "--license", "mine")
    assert hub.large == {}


def test_a_host_that_does_not_answer_is_told(hub, classifier, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/acme/photos: nothing was committed: .*check the network"):
        push(classifier, "hf://acme/photos")


def test_no_token_is_told_before_the_model_is_loaded(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "nowhere")
    with pytest.raises(UserError, match="hf://acme/photos: no token; `hf auth login`, or set HF_TOKEN"):
        push("not-there.keras", "hf://acme/photos")


@pytest.mark.parametrize("target", ["acme/photos", "hf://photos", "hf://a/b/c", "hf://a/b@main", "https://hub/a/b"])
def test_an_address_of_another_form_is_refused(hub, target):
    with pytest.raises(UserError, match=r"must be hf://<owner>/<name>"):
        push("not-there.keras", target)


def test_without_the_client_the_extra_is_named(hub, monkeypatch):
    monkeypatch.setattr("pipelines.inference.hub.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"huggingface_hub is not installed; `uv pip install '.\[hub\]'`"):
        push("not-there.keras", "hf://acme/photos")


def test_what_a_reviewer_rejected_is_not_pushed(hub):
    import mlflow

    mlflow.MlflowClient().set_model_version_tag(NAME, "2", "review.status", "rejected")
    with pytest.raises(UserError, match=f"{NAME} version 2: was rejected by its reviewer"):
        push(f"models:/{NAME}/2", "hf://acme/photos")
    assert hub.requests == []


def test_a_file_that_is_not_the_one_that_was_registered_is_refused(hub):
    import mlflow

    client = mlflow.MlflowClient()
    digest = client.get_model_version(NAME, "3").tags["artifact_digest"]
    client.set_model_version_tag(NAME, "3", "artifact_digest", "0" * 64)
    try:
        with pytest.raises(UserError, match=f"{NAME} version 3: its file is not the one that was registered"):
            push(f"models:/{NAME}/3", "hf://acme/photos")
    finally:
        client.set_model_version_tag(NAME, "3", "artifact_digest", digest)
    assert hub.requests == []
