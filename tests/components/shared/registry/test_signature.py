"""Signed models: a real model folder of MLflow, real keys, and everything that somebody might change in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from components.shared.artifacts import Dataset
from components.shared.errors import UserError
from components.shared.evaluation.gate import BLESSING
from components.shared.registry import signed_files
from components.shared.registry.logged_model import log_classifier
from components.shared.registry.signature import (
    MODEL_FILE,
    Signer,
    fetch,
    find_signer,
    require_signed,
)
from components.shared.registry.signed_files import SIGNATURE
from tests.helpers.datasets import make_dataset
from tests.helpers.signing import make_keys

PLACES = 200


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def logged(tracking_uri, tmp_path_factory, keys):
    """A classifier as `register` logs and signs it: its address."""
    import keras

    place = tmp_path_factory.mktemp("logged")
    layers = [
        keras.Input((16, 16, 3), dtype="uint8"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]
    keras.Sequential(layers).save(place / "classifier.keras")
    (place / BLESSING).write_text('{"blessed": true}')
    data = Dataset(make_dataset(place / "dataset", image_size=16))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, value in keys.variables().items():
            patch.setenv(name, value)
        signer = Signer(keys.private)
        mlflow.set_tracking_uri(tracking_uri)
        with mlflow.start_run(experiment_id=mlflow.set_experiment("signed").experiment_id) as run:
            uri = log_classifier(
                place / "classifier.keras",
                data,
                run.info.run_id,
                place / BLESSING,
                lambda folder: signer.sign(folder, place / SIGNATURE),
            )
        mlflow.MlflowClient().log_model_artifact(uri.rpartition("/")[2], str(place / SIGNATURE))
    return uri


@pytest.fixture
def folder(logged, tmp_path, keys, monkeypatch):
    """The files of the model, fetched anew, where only the public key is known."""
    (tmp_path / "fetched").mkdir()
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", str(keys.public))
    return fetch(logged, tmp_path / "fetched")


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def check(folder, required=True):
    return require_signed(folder, "model 1", required)


def test_what_was_signed_is_what_comes_out_of_the_registry(folder):
    assert check(folder) is True
    names = {str(path.relative_to(folder)) for path in files_of(folder)}
    # model, verdict with the dataset's digest, and what is run and compared besides
    assert {MODEL_FILE, BLESSING, "MLmodel", "code/signed_files.py", "training_images.npy", SIGNATURE} <= names
    assert "model-signing==" in (folder / "requirements.txt").read_text()


def test_one_flipped_byte_in_any_of_200_places_is_refused(folder):
    random = np.random.default_rng(0)
    files = [path for path in files_of(folder) if path.stat().st_size]
    # each file at its ends and somewhere, the signature itself too; the rest anywhere
    places = [(path, at) for path in files for at in {0, path.stat().st_size - 1}]
    while len(places) < PLACES:
        path = files[random.integers(len(files))]
        places.append((path, int(random.integers(path.stat().st_size))))
    accepted = []
    for path, at in places:
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[at] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(changed))
        try:
            check(folder)
            accepted.append((path.name, at))
        except UserError as error:
            assert str(error).startswith("model 1: ") and "\n" not in str(error)
        path.write_bytes(whole)
    assert len(places) >= PLACES and len({path for path, _ in places}) == len(files)
    assert accepted == []
    assert check(folder) is True


def test_every_other_character_of_the_signature_is_refused(folder):
    # Base64 has several texts for the same bytes at its end
    signature = folder / SIGNATURE
    text = signature.read_text()
    end = text.index('"', text.index('"sig":"') + len('"sig":"'))
    for at in range(end - 4, end):
        for other in set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= ") - {text[at]}:
            signature.write_text(text[:at] + other + text[at + 1 :])
            with pytest.raises(UserError):
                check(folder)
    for changed in (text + " ", text.replace(":", ": ", 1), "{}", "[]", "", "no JSON"):
        signature.write_text(changed)
        with pytest.raises(UserError, match=r"^model 1: "):
            check(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "code" / "sitecustomize.py").write_text("1"), "Extra files found.*sitecustomize"),
        (lambda folder: (folder / ".gitattributes").write_text("1"), "Extra files found.*gitattributes"),
        (lambda folder: (folder / "training_images.npy").unlink(), "Missing files.*training_images.npy"),
        (
            lambda folder: (folder / BLESSING).write_text('{"blessed": 1}'),
            "blessing.json: changed since it was signed$",
        ),
        (lambda folder: (folder / SIGNATURE).unlink(), r"it is not signed \(it has no model.sig\)"),
        (lambda folder: (folder / "link").symlink_to("MLmodel"), "symlink"),
    ],
)
def test_a_file_more_or_less_or_another_is_refused(folder, change, said):
    change(folder)
    with pytest.raises(UserError, match=f"^model 1: .*{said}"):
        check(folder)


def test_what_loading_leaves_behind_is_no_change_and_is_never_handed_on(folder, tmp_path):
    (folder / "registered_model_meta").write_text("model_name: x")
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "signed_files.cpython-311.pyc").write_bytes(b"whatever")
    assert check(folder) is True
    (tmp_path / "again").mkdir()
    again = fetch(str(folder), tmp_path / "again")
    assert {path.name for path in files_of(again)} == {path.name for path in files_of(folder)} - {
        "registered_model_meta",
        "signed_files.cpython-311.pyc",
    }


def test_while_a_key_is_replaced_both_count(folder, tmp_path, monkeypatch, keys):
    new = make_keys(tmp_path / "new")
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", str(new.public))
    with pytest.raises(UserError, match="signed with another key than CONTRASTIVE_PUBLIC_KEY names"):
        check(folder)
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", f"{new.public}{os.pathsep}{keys.public}")
    assert check(folder) is True
    Signer(new.private).sign(folder, folder / SIGNATURE)
    assert check(folder) is True
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", str(keys.public))
    with pytest.raises(UserError, match="signed with another key"):
        check(folder)


def test_only_who_names_a_key_or_must_checks(folder, monkeypatch):
    (folder / SIGNATURE).unlink()
    monkeypatch.delenv("CONTRASTIVE_PUBLIC_KEY")
    assert check(folder, required=False) is False
    with pytest.raises(UserError, match=r"^CONTRASTIVE_PUBLIC_KEY: not set, and registry.require_signature = true"):
        check(folder)


def test_wrong_keys_are_told_in_one_line(folder, tmp_path, monkeypatch, keys):
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    open_key = serialization.NoEncryption()
    other = {
        "rsa": rsa.generate_private_key(65537, 2048).private_bytes(pem, pkcs8, open_key),
        "locked": ec.generate_private_key(ec.SECP256R1()).private_bytes(
            pem, pkcs8, serialization.BestAvailableEncryption(b"secret")
        ),
        "curve": ec.generate_private_key(ec.SECP256K1()).private_bytes(pem, pkcs8, open_key),
        "text": b"no key",
    }
    for name, content in other.items():
        (tmp_path / name).write_bytes(content)
    for path in [*(tmp_path / name for name in (*other, "missing")), keys.public]:
        monkeypatch.setenv("CONTRASTIVE_SIGNING_KEY", str(path))
        with pytest.raises(
            UserError, match=f"^CONTRASTIVE_SIGNING_KEY = {path}: no private key .* `openssl "
        ) as said:
            find_signer(required=True)
        assert "\n" not in str(said.value)
    for path in [*(tmp_path / name for name in ("text", "missing")), keys.private]:
        monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", str(path))
        with pytest.raises(UserError, match=f"^model 1: CONTRASTIVE_PUBLIC_KEY = {path}: no public key"):
            check(folder)


def test_who_signs_must_name_the_public_key_too(tmp_path, monkeypatch, keys):
    monkeypatch.setenv("CONTRASTIVE_SIGNING_KEY", str(keys.private))
    other = make_keys(tmp_path / "other").public
    for named, shown in (("", "not set"), (str(other), str(other))):
        monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", named)
        with pytest.raises(UserError, match=f"^CONTRASTIVE_PUBLIC_KEY = {shown}: must name the public key of"):
            find_signer(required=False)
    missing = tmp_path / "missing"
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", f"{missing}{os.pathsep}{keys.public}")
    with pytest.raises(UserError, match=f"^CONTRASTIVE_PUBLIC_KEY = {missing}: no public key"):
        find_signer(required=False)
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", f"{other}{os.pathsep}{keys.public}")
    assert find_signer(required=False) is not None


def test_who_must_sign_and_has_no_key_is_told(monkeypatch, keys):
    monkeypatch.delenv("CONTRASTIVE_SIGNING_KEY", raising=False)
    monkeypatch.delenv("CONTRASTIVE_PUBLIC_KEY", raising=False)
    assert find_signer(required=False) is None
    with pytest.raises(
        UserError, match=r"^CONTRASTIVE_SIGNING_KEY: not set, and registry.require_signature = true"
    ):
        find_signer(required=True)
    monkeypatch.setenv("CONTRASTIVE_PUBLIC_KEY", str(keys.public))
    with pytest.raises(UserError, match=r"^CONTRASTIVE_SIGNING_KEY: not set, and CONTRASTIVE_PUBLIC_KEY asks for"):
        find_signer(required=False)


def test_a_missing_package_is_named(folder, monkeypatch, keys):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UserError, match=r"^model_signing: is not installed, .*`uv pip install model-signing"):
        check(folder)
    monkeypatch.setenv("CONTRASTIVE_SIGNING_KEY", str(keys.private))
    with pytest.raises(UserError, match=r"^model_signing: is not installed"):
        find_signer(required=False)


def test_mlflow_loads_what_is_signed_and_nothing_else(folder, tmp_path):
    """In a process of its own, as a server does, without this project."""
    spoilt = tmp_path / "spoilt"
    shutil.copytree(folder, spoilt)
    changed = bytearray((spoilt / MODEL_FILE).read_bytes())
    changed[len(changed) // 2] ^= 1
    (spoilt / MODEL_FILE).write_bytes(bytes(changed))
    program = (
        "import sys, numpy, mlflow\n"
        "for name in ('components', 'models', 'pipelines'): sys.modules[name] = None\n"
        "images = numpy.zeros((1, 16, 16, 3), 'uint8')\n"
        "print(mlflow.pyfunc.load_model(sys.argv[1]).predict(images).shape)\n"
        "try: mlflow.pyfunc.load_model(sys.argv[2])\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(folder), str(spoilt)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    answered, refused = done.stdout.splitlines()[-2:]
    assert answered == "(1, 3)"
    assert refused == "data/model.keras: changed since it was signed"


def test_the_librarys_own_command_takes_the_signature(folder, keys):
    """For whoever has the model and the public key, and nothing of this project."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder)]
    command += ["--signature", str(folder / SIGNATURE), "--public_key", str(keys.public)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    (folder / "MLmodel").write_text("changed")
    assert subprocess.run(command, capture_output=True).returncode != 0


def test_the_file_that_goes_into_the_model_needs_nothing_of_this_project():
    text = Path(signed_files.__file__).read_text()
    assert "components" not in text
