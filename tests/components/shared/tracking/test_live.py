"""Curves of a training that runs: there while it does, drawn by DVC, and gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

from components.shared.tracking.live import draw, live_curves
from components.shared.tracking.run import tracked
from tests.helpers.repository import ROOT

FILES = (
    *("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "live/.gitignore"),
    *(".dvc/config", ".dvc/plots/live.json"),
)


@pytest.fixture
def repository(in_tmp):
    """A folder with what of the repository makes DVC draw the curves."""
    for name in FILES:
        (in_tmp / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, in_tmp / name)
    return in_tmp


def tables(repository):
    """Below `live/`: name → lines."""
    found = sorted((repository / "live").rglob("*.tsv"))
    return {path.relative_to(repository).as_posix(): path.read_text().splitlines() for path in found}


def dvc(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments, "--json"], capture_output=True, text=True, check=True
    )
    return done.stderr, json.loads(done.stdout)


def test_dvc_draws_a_line_for_each_seed_while_it_trains_and_says_nothing_afterwards(repository, tracking_uri):
    for command in (["init"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-m", "Start"]):
        subprocess.run(["git", *command], capture_output=True, check=True)
    loss = "live/pretrain/train/contrastive_loss.tsv"
    with live_curves("pretrain"):
        for seed in (3, 4):
            with tracked("pretrain", {}, "d", {}, "live", seed) as run:
                run.curve({"train/contrastive_loss": 2.0, "validation/knn_accuracy": 0.25}, 1)
                run.curve({"train/contrastive_loss": 1.0 / 3, "validation/knn_accuracy": np.nan}, 2)
                run.metrics({"result/contrastive_loss": 9.0}, step=2)
        assert tables(repository) == {
            loss: ["epoch\tseed\tvalue", "1\t3\t2", "2\t3\t0.333333", "1\t4\t2", "2\t4\t0.333333"],
            "live/pretrain/validation/knn_accuracy.tsv": ["epoch\tseed\tvalue", "1\t3\t0.25", "1\t4\t0.25"],
        }
        assert subprocess.run(["git", "status", "--porcelain"], capture_output=True).stdout == b""
        said, shown = dvc("plots", "diff", "HEAD", "workspace", "--targets", "dvc.yaml::live")
        assert said == ""
        (plot,) = shown["data"][loss]
        assert [(row["seed"], row["value"]) for row in plot["content"]["data"]["values"]][1] == ("3", "0.333333")
        assert plot["content"]["encoding"]["color"]["field"] == "seed" and "errors" not in shown
    assert dvc("plots", "diff", "HEAD", "workspace", "--targets", "dvc.yaml::live") == ("", {})
    assert [path.name for path in (repository / "live").iterdir()] == [".gitignore"]


def test_what_a_killed_run_left_is_not_drawn_and_a_failed_one_leaves_nothing(repository):
    left = repository / "live" / "pretrain" / "loss.tsv"
    left.parent.mkdir()
    left.write_text("epoch\tseed\tvalue\n1\t0\t5\n")
    with pytest.raises(KeyboardInterrupt), live_curves("pretrain"):
        draw(1, 0, {"loss": 4.0})
        assert tables(repository) == {"live/pretrain/loss.tsv": ["epoch\tseed\tvalue", "1\t0\t4"]}
        raise KeyboardInterrupt
    assert tables(repository) == {}


def test_without_the_folder_in_a_read_only_one_and_after_it_was_removed_nothing_is_drawn(repository):
    # as of a task of Kubeflow
    draw(1, 0, {"loss": 4.0})
    with live_curves("pretrain"):
        shutil.rmtree("live/pretrain")
        draw(1, 0, {"loss": 4.0})
    (repository / "live").rename("gone")
    with live_curves("pretrain"):
        draw(1, 0, {"loss": 4.0})
    assert not (repository / "live").exists()
    # somebody else's
    (repository / "live" / "pretrain").mkdir(parents=True)
    (repository / "live" / "pretrain" / "mine").touch()
    with live_curves("pretrain"):
        draw(1, 0, {"loss": 4.0})
    assert (repository / "live" / "pretrain" / "mine").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_repository_trains_all_the_same(repository):
    (repository / "live").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with live_curves("pretrain"):
        draw(1, 0, {"loss": 4.0})
    (repository / "live").chmod(stat.S_IRWXU)
    assert tables(repository) == {}
