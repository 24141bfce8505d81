"""Archives and Parquet files at an address, from a server on this machine."""

from __future__ import annotations

import functools
import http.server
import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.ingest import ingest
from components.shared.artifacts import Manifest, read_record
from components.shared.digests import file_digest, files_digest
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.sources import open_source, remote
from pipelines.kubeflow.versions import data_version
from tests.helpers.image_trees import encode, pack_zip, picture, write_tree


class Handler(http.server.SimpleHTTPRequestHandler):
    """Remembers what was asked for; can break off, or say nothing of times."""

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def copyfile(self, source, outputfile):
        outputfile.write(source.read()[: self.server.most])

    def send_header(self, keyword, value):
        if keyword != "Last-Modified" or self.server.tells_times:
            super().send_header(keyword, value)

    def log_message(self, *_):
        return


@pytest.fixture
def served(tmp_path):
    """A server of the folder `served`, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked, server.most, server.tells_times = [], None, True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.folder, server.address = folder, f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "CACHE", tmp_path / "cache")


@pytest.fixture
def archive(served, tmp_path):
    tree = write_tree(tmp_path / "tree", {"train/a": 8, "train/b": 8, "test/a": 2, "test/b": 2})
    return pack_zip(tree, served.folder / "images.zip")


def write_parquet(path, start, count):
    rows = [{"bytes": encode(picture(str(start + i))), "path": None} for i in range(count)]
    pq.write_table(pa.table({"image": rows, "label": [i % 2 for i in range(count)]}), path)
    return path


def params(address, source="folder", **changes):
    changed = [f"data.{name}={value}" for name, value in changes.items()]
    return compose_params([f"data={source}", f"data.path='{address}'", "data.image_size=12", *changed])[0]


def asked_for(served, name):
    return sum(path.endswith(name) for path in served.asked)


def test_an_archive_is_fetched_once_and_checked(served, archive, tmp_path, tracking_uri):
    digest = file_digest(archive)
    given = params(f"{served.address}/images.zip", digest=digest)
    manifest = ingest(tmp_path / "dataset", given)
    assert manifest.counts["test"] == 4
    assert read_record(tmp_path / "dataset", Manifest).source == f"{served.address}/images.zip"
    assert manifest.source_digest == digest
    # what is kept and known by its digest needs no server
    served.shutdown()
    served.server_close()
    assert ingest(tmp_path / "again", given).digest == manifest.digest


def test_a_changed_archive_is_fetched_again_where_no_digest_is_asked_for(served, archive, tmp_path, monkeypatch):
    # as if it were encrypted; there is no certificate for this machine
    monkeypatch.setattr(remote, "_is_safe", lambda protocol: True)
    given = params(f"{served.address}/images.zip").data
    with open_source(given) as source:
        first = source.digest()
    with open_source(given) as source:
        assert source.digest() == first
    assert asked_for(served, "images.zip") == 1
    pack_zip(write_tree(tmp_path / "other", {"x": 9, "y": 9}), archive)
    with open_source(given) as source:
        assert source.digest() != first
        assert source.class_names == ["x", "y"]
    # a server that tells neither tag nor time is asked each time
    served.tells_times = False
    asked = asked_for(served, "images.zip")
    for _ in range(2):
        open_source(given).close()
    assert asked_for(served, "images.zip") == asked + 2


def test_other_content_than_that_of_the_digest_is_refused_and_not_kept(served, archive, tmp_path):
    given = params(f"{served.address}/images.zip", digest="0" * 64).data
    with pytest.raises(UserError, match=rf"its SHA-256 is {file_digest(archive)}, not data.digest = 0+") as caught:
        open_source(given)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_copy_is_fetched_again(served, archive, tmp_path):
    given = params(f"{served.address}/images.zip", digest=file_digest(archive)).data
    open_source(given).close()
    kept = next((tmp_path / "cache").glob("*/images.zip"))
    kept.write_bytes(kept.read_bytes()[:-10] + bytes(10))
    with open_source(given) as source:
        assert source.digest() == given.digest
    assert asked_for(served, "images.zip") == 2


def test_half_a_file_is_not_taken(served, archive, tmp_path):
    served.most = 500
    with pytest.raises(UserError, match=r"images.zip: can't be fetched"):
        open_source(params(f"{served.address}/images.zip", digest=file_digest(archive)).data)
    assert list((tmp_path / "cache").iterdir()) == []


def test_parquet_files_of_a_folder(served, tmp_path, tracking_uri):
    files = [write_parquet(served.folder / f"{name}.parquet", n, 60) for n, name in ((0, "train"), (50, "test"))]
    (served.folder / "readme.md").write_text("no table")
    manifest = ingest(tmp_path / "dataset", params(served.address, "parquet", digest=files_digest(files)))
    assert manifest.counts["test"] == 60
    assert not asked_for(served, "readme.md")
    with pytest.raises(UserError, match=r"its SHA-256 is"):
        open_source(params(served.address, "parquet", digest="f" * 64).data)


def test_a_single_parquet_file(served, tmp_path):
    file = write_parquet(served.folder / "train.parquet", 0, 20)
    address = f"{served.address}/train.parquet?version=3"
    with open_source(params(address, "parquet", digest=files_digest([file])).data) as source:
        assert len(list(source.images("train"))) == 20


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("ftp://example.org/images.zip", "folder", r"must begin with https://, http://, s3://, gs://"),
        (
            "http://example.org/images.zip",
            "folder",
            r"may be changed on its way; use https://, or give its SHA",
        ),
        ("https://example.org/x", "stl10", r"data.source = stl10 takes a folder here"),
    ],
)
def test_addresses_that_are_refused_without_asking_anybody(path, source, message):
    with pytest.raises(UserError, match=message):
        open_source(params(path, source).data)


def test_what_is_not_there_is_told_in_one_line(served):
    for name, source in (("gone.zip", "folder"), ("", "parquet")):
        with pytest.raises(UserError, match=r"can't be read: nothing there") as caught:
            open_source(params(f"{served.address}/{name}", source, digest="0" * 64).data)
        assert "\n" not in str(caught.value)
    served.shutdown()
    served.server_close()
    with pytest.raises(UserError, match=r"can't be read: nothing there \(Cannot connect"):
        open_source(params(f"{served.address}/images.zip", digest="0" * 64).data)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(UserError, match=r"s3://bucket/images.zip: Install s3fs"):
        open_source(params("s3://bucket/images.zip").data)


def test_a_password_is_not_shown(served, archive, tmp_path, tracking_uri):
    address = f"{served.address.replace('//', '//me:secret@')}/images.zip"
    ingest(tmp_path / "dataset", params(address, digest=file_digest(archive)))
    assert "secret" not in json.loads((tmp_path / "dataset" / "manifest.json").read_text())["source"]
    with pytest.raises(UserError) as caught:
        open_source(params(address.replace("images", "gone"), digest="0" * 64).data)
    assert "secret" not in str(caught.value)


def test_the_digest_of_what_lies_here_is_checked_too(tmp_path):
    tree = write_tree(tmp_path / "tree", {"a": 3, "b": 3})
    with pytest.raises(UserError, match=r"tree: its SHA-256 is .*, not data.digest = 0+; find out what changed"):
        open_source(params(tree, digest="0" * 64).data)


def test_kubeflow_sees_a_change_at_an_address(served, archive, monkeypatch):
    monkeypatch.setattr(remote, "_is_safe", lambda protocol: True)
    data = params(f"{served.address}/images.zip").data
    first = data_version(data)
    assert first == data_version(data)
    archive.write_bytes(archive.read_bytes() + b"more")
    assert data_version(data) != first
    # where the server tells neither tag nor time, no two states are alike
    served.tells_times = False
    assert data_version(data) != data_version(data)
