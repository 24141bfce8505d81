"""CIFAR-10 and STL-10 through the real TensorFlow Datasets builders, on small archives in the original format."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info
from tensorflow_datasets.image_classification import cifar

from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.sources import open_source
from components.shared.sources.tfds import TensorFlowDataset
from tests.helpers.repository import ROOT

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "stl10": "stl10_binary.tar.gz"}


def pixels(count, size, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def pack(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def cifar10_archive(folder):
    """As its authors describe: a byte of label, then 1024 bytes each of red, green and blue, row by row."""
    train, test = pixels(50, 32, 1), pixels(20, 32, 2)

    def records(images, first):
        return b"".join(
            bytes([(first + i) % 10]) + image.transpose(2, 0, 1).tobytes() for i, image in enumerate(images)
        )

    inside = "cifar-10-batches-bin/"
    files = {f"{inside}data_batch_{b + 1}.bin": records(train[10 * b : 10 * b + 10], 0) for b in range(5)}
    files |= {f"{inside}test_batch.bin": records(test, 0), f"{inside}batches.meta.txt": "\n".join(NAMES).encode()}
    path = pack(folder / ARCHIVES["cifar10"], files)
    return path, {"train": (train, np.arange(50) % 10), "test": (test, np.arange(20) % 10)}


def stl10_archive(folder):
    """As its authors describe: red, green and blue, each column by column; labels from 1 to 10."""
    images = {"train": pixels(20, 96, 3), "test": pixels(10, 96, 4), "unlabelled": pixels(30, 96, 5)}
    labels = {"train": np.arange(20) % 10, "test": np.arange(10) % 10, "unlabelled": np.full(30, -1)}
    files = {"stl10_binary/class_names.txt": "".join(f"{name}\n" for name in NAMES).encode()}
    for split, name in {"train": "train", "test": "test", "unlabelled": "unlabeled"}.items():
        files[f"stl10_binary/{name}_X.bin"] = images[split].transpose(0, 3, 2, 1).tobytes()
        if split != "unlabelled":
            files[f"stl10_binary/{name}_y.bin"] = (labels[split] + 1).astype(np.uint8).tobytes()
    folds = [[fold, 10 + fold] for fold in range(10)]
    files["stl10_binary/fold_indices.txt"] = "".join(f"{a} {b} \n" for a, b in folds).encode()
    return pack(folder / ARCHIVES["stl10"], files), {s: (images[s], labels[s]) for s in images}


MAKERS = {"cifar10": cifar10_archive, "stl10": stl10_archive}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach a server is refused at once."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def url_infos(name):
    """TensorFlow Datasets' own register of a data set's archives; a test may change it through monkeypatch."""
    return tensorflow_datasets.builder(name, data_dir="unused").url_infos


def register(monkeypatch, name, path, url=None):
    """Let TensorFlow Datasets take a small archive for the original one."""
    infos = url_infos(name)
    original = next(iter(infos))
    monkeypatch.delitem(infos, original)
    monkeypatch.setitem(infos, url or original, compute_url_info(path))


def read(source):
    """Images and labels of all splits, sorted by content (TensorFlow Datasets shuffles when it prepares)."""
    found = {}
    for split in ("train", "validation", "test", "unlabelled"):
        rows = zip(
            [image.pixels.tobytes() for image in source.images(split)], source.labels(split).tolist(), strict=True
        )
        found[split] = sorted(rows)
    return found


def expected(arrays):
    rows = {split: sorted((i.tobytes(), int(n)) for i, n in zip(*arrays[split], strict=True)) for split in arrays}
    return {"validation": [], "unlabelled": [], **rows}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("cifar10", 32), ("stl10", 96)])
def test_an_archive_put_there_by_hand_is_used_offline(tmp_path, cache, no_network, monkeypatch, name, size):
    path, arrays = MAKERS[name](tmp_path / "archives")
    register(monkeypatch, name, path)
    source = TensorFlowDataset(name, path.parent, size)
    assert source.class_names == NAMES
    assert source.digest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read(source) == expected(arrays)
    assert not (cache / "unpacked" / name).exists()
    # prepared once: the archive is not needed again, and the order stays
    path.unlink()
    again = TensorFlowDataset(name, path.parent, size)
    assert again.class_names == NAMES
    assert again.labels("train").tolist() == source.labels("train").tolist()
    for one, other in zip(source.images("train"), again.images("train"), strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.digest, one.path) == (other.digest, other.path)
    again.channels = 1
    for grey, rgb in zip(again.images("test"), source.images("test"), strict=True):
        np.testing.assert_array_equal(grey.pixels[..., 0], np.asarray(Image.fromarray(rgb.pixels).convert("L")))
    small, whole = (next(TensorFlowDataset(name, path.parent, side).images("test")) for side in (16, size))
    assert small.pixels.shape == (16, 16, 3)
    assert (small.digest, small.path, small.width) == (whole.digest, "test/0", size)


@pytest.mark.slow
def test_a_fold_of_stl10_keeps_the_labels_of_its_images_alone(tmp_path, cache, no_network, monkeypatch):
    path, arrays = stl10_archive(tmp_path / "archives")
    register(monkeypatch, "stl10", path)
    for fold in (0, 7):
        data = compose_params(["data=stl10", f"data.path={path.parent}", f"data.fold={fold}"])[0].data
        found = read(open_source(data))
        images, labels = arrays["train"]
        inside = [fold, 10 + fold]
        kept = [int(n) if i in inside else -1 for i, n in enumerate(labels)]
        assert found["train"] == sorted((i.tobytes(), n) for i, n in zip(images, kept, strict=True))
        assert len(found["test"]) == 10
    path.unlink()
    with pytest.raises(UserError, match=r"put stl10_binary.tar.gz there, from http"):
        open_source(data)


@pytest.mark.slow
def test_an_archive_is_downloaded_and_its_checksum_verified(tmp_path, cache, monkeypatch):
    path, arrays = cifar10_archive(tmp_path / "served")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(path.parent))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        serve_from(monkeypatch, url)
        register(monkeypatch, "cifar10", path, url)
        whole = path.read_bytes()
        path.write_bytes(whole[:-100] + bytes(100))
        with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: is not the original archive"):
            TensorFlowDataset("cifar10", tmp_path / "archives", 32)
        path.write_bytes(whole)
        assert read(TensorFlowDataset("cifar10", tmp_path / "archives", 32)) == expected(arrays)
        server.shutdown()


def serve_from(monkeypatch, url):
    original = cifar.Cifar10._cifar_info.fget
    monkeypatch.setattr(cifar.Cifar10, "_cifar_info", property(lambda self: original(self)._replace(url=url)))


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_wrong_archive_is_refused_in_one_line(tmp_path, cache, no_network, name):
    path, _ = MAKERS[name](tmp_path / "archives")
    ((url, original),) = url_infos(name).items()
    with pytest.raises(UserError) as caught:
        TensorFlowDataset(name, path.parent, 32)
    message = str(caught.value)
    assert message.startswith(f"{path}: is not the original archive (its SHA-256 should be {original.checksum}")
    assert message.endswith(f"download it again from {url}")
    assert "\n" not in message
    assert not list(cache.glob(f"{name}/*/dataset_info.json"))


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_archives_are_the_authors_own(name):
    ((url, original),) = url_infos(name).items()
    assert original.filename == ARCHIVES[name]
    assert url.endswith(ARCHIVES[name])
    assert url.split("/")[2] in ("www.cs.toronto.edu", "ai.stanford.edu")


@pytest.mark.parametrize("name", ARCHIVES)
def test_without_network_it_says_how_to_place_the_archive(tmp_path, cache, no_network, name):
    start = time.monotonic()
    data = compose_params([f"data={name}", f"data.path={tmp_path / 'archives'}"])[0].data
    with pytest.raises(UserError) as caught:
        open_source(data)
    assert time.monotonic() - start < 100  # the library itself would try for some 200 seconds
    message = str(caught.value)
    assert message.startswith(f"data.source = {name}: can't get the archive (no connection to ")
    assert f"put {ARCHIVES[name]} into {tmp_path / 'archives'}/, then run this again" in message
    assert "\n" not in message


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_before_the_library_would(tmp_path, no_network, tracking_uri):
    write_params(compose_params(["data=cifar10", f"data.path={tmp_path}"])[1], tmp_path / "params.yaml")
    with socket.create_server(("127.0.0.1", 0), backlog=20) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "components.ingest"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HTTPS_PROXY": proxy, "https_proxy": proxy},
            capture_output=True,
            text=True,
            timeout=150,  # the library itself would try for some 200 seconds
            check=False,
        )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: data.source = cifar10: can't get the archive (no answer from www.cs.toro")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_refusing_server_is_reported(tmp_path, cache, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/stl10_binary.tar.gz"
        infos = url_infos("stl10")
        ((original, info),) = infos.items()
        monkeypatch.delitem(infos, original)
        monkeypatch.setitem(infos, url, info)
        with pytest.raises(UserError, match=r"can't get the archive \(501 Server Error"):
            TensorFlowDataset("stl10", tmp_path, 96)
        server.shutdown()
