"""Data on S3: DVC's remote, and a source at an s3:// address, with a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from components.shared.digests import file_digest
from components.shared.errors import UserError
from components.shared.params.composing import compose_params
from components.shared.sources import open_source, remote
from pipelines.kubeflow.versions import data_version
from tests.helpers.deployment import SECRETS, store
from tests.helpers.image_trees import pack_zip, write_tree

BUCKET = "data"
KEYS = {name: SECRETS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A client of an empty store with a bucket; it knows the store's address."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (Python package: dvc[s3])")
    with store(tmp_path_factory.mktemp("store")) as address:
        keys = {name.lower(): value for name, value in KEYS.items()}
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def account(s3, monkeypatch, tmp_path):
    """The account in the environment, as DVC and s3fs read it; no other is found."""
    for name, value in {
        **KEYS,
        "AWS_ENDPOINT_URL": s3.meta.endpoint_url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(remote, "CACHE", tmp_path / "cache")
    return monkeypatch


@pytest.fixture
def archive(tmp_path):
    tree = write_tree(tmp_path / "tree", {"train/a": 8, "train/b": 8, "test/a": 2, "test/b": 2})
    return pack_zip(tree, tmp_path / "images.zip")


def run(folder, *command):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "GIT_AUTHOR_NAME": "a", "GIT_COMMITTER_NAME": "a",
           "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_EMAIL": "a@example.org"}  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def must(folder, *command):
    status, said = run(folder, *command)
    assert status == 0, f"{' '.join(map(str, command))}\n{said}"
    return said


def names(s3):
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="dvc/").get("Contents", [])]


@pytest.mark.slow
def test_data_is_pushed_pulled_updated_and_compared(s3, account, archive, tmp_path):
    here = tmp_path / "here"
    (here / "data").mkdir(parents=True)
    must(here, "git", "init", "-q")
    must(here, "dvc", "init", "-q")
    must(here, "dvc", "remote", "add", "-d", "store", f"s3://{BUCKET}/dvc")
    must(here, "dvc", "remote", "modify", "store", "endpointurl", s3.meta.endpoint_url)
    shutil.copy(archive, here / "data" / "images.zip")
    must(here, "dvc", "add", "-q", "data/images.zip")
    must(here, "dvc", "push", "-q")
    must(here, "git", "add", "-A")
    must(here, "git", "commit", "-qm", "First")
    # a folder's worth of images is one object
    assert len(names(s3)) == 1

    there = tmp_path / "there"
    must(tmp_path, "git", "clone", "-q", here, there)
    must(there, "dvc", "pull", "-q")
    assert file_digest(there / "data" / "images.zip") == file_digest(archive)

    pack_zip(write_tree(tmp_path / "tree", {"train/a": 12}), here / "data" / "images.zip")
    must(here, "dvc", "add", "-q", "data/images.zip")
    assert "data/images.zip" in must(here, "dvc", "diff")
    must(here, "dvc", "push", "-q")
    assert len(names(s3)) == 2
    must(here, "git", "commit", "-qam", "More of a")
    # the first version is still there
    must(here, "git", "checkout", "-q", "HEAD~1")
    shutil.rmtree(here / ".dvc" / "cache")
    must(here, "dvc", "pull", "-q", "--force")
    assert file_digest(here / "data" / "images.zip") == file_digest(archive)


@pytest.mark.slow
def test_what_was_changed_on_the_store_is_not_taken(s3, account, archive, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    must(here, "dvc", "init", "-q", "--no-scm")
    must(here, "dvc", "remote", "add", "-d", "store", f"s3://{BUCKET}/dvc/changed")
    shutil.copy(archive, here / "images.zip")
    must(here, "dvc", "add", "-q", "images.zip")
    must(here, "dvc", "push", "-q")
    (key,) = [name for name in names(s3) if "/changed/" in name]
    s3.put_object(Bucket=BUCKET, Key=key, Body=archive.read_bytes()[:-1] + b"x")
    shutil.rmtree(here / ".dvc" / "cache")
    (here / "images.zip").unlink()
    must(here, "dvc", "remote", "modify", "store", "verify", "true")
    status, _ = run(here, "dvc", "pull", "-q")
    assert status != 0
    assert not (here / "images.zip").exists()


@pytest.mark.slow
def test_an_archive_at_an_s3_address_is_a_source(s3, account, archive):
    s3.upload_file(str(archive), BUCKET, "raw/images.zip")
    given = [f"data.path=s3://{BUCKET}/raw/images.zip", "data.image_size=12"]
    data = compose_params(["data=folder", *given])[0].data
    first = data_version(data)
    with open_source(data) as source:
        assert source.location == f"s3://{BUCKET}/raw/images.zip"
        assert source.digest() == file_digest(archive)
        assert len(list(source.images("train"))) == 16
    s3.put_object(Bucket=BUCKET, Key="raw/images.zip", Body=archive.read_bytes() + b"more")
    assert data_version(data) != first
    for path, message in (("raw/gone.zip", "nothing there"), ("raw", "a folder, where one file")):
        gone = compose_params(["data=folder", f"data.path=s3://{BUCKET}/{path}"])[0].data
        with pytest.raises(UserError, match=message) as caught:
            open_source(gone)
        assert "\n" not in str(caught.value)
    account.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError, match=rf"s3://{BUCKET}/raw/images.zip: can't be read: "):
        open_source(data)
