"""Which code, which data and which pipeline run something was made by."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from components.shared import git

PARAMS = Path("params.yaml")


def lineage() -> dict[str, str]:
    """Tags that say which code, data and pipeline run this is."""
    tags = {"git.commit": _commit()}
    # these two change while the pipeline runs; they tell what was made, not by which code
    if git.is_dirty(".", ":!dvc.lock", ":!metrics.json"):
        tags["git.dirty"] = "true"
    pointer = Path("data.dvc")
    if pointer.exists():
        outs = (yaml.safe_load(pointer.read_text()) or {}).get("outs") or [{}]
        tags["dvc.data"] = str(outs[0].get("md5", "unknown"))
    tags["pipeline.run"] = pipeline_name()
    return tags


def pipeline_name() -> str:
    """Which pipeline run this is.

    Under `dvc repro` runs of the same commit and options are one, however often it was called until all was done.
    """
    run = os.environ.get("PIPELINE_RUN_ID") or os.environ.get("DVC_EXP_NAME")
    return run or f"repro-{_commit()[:8]}{_options()}"


def made_again(lineage: Mapping[str, str], overrides: Sequence[str] | None) -> str:
    """The command for a shell, in a clone of the repository, that makes a run again.

    Args:
        lineage: tags of the run.
        overrides: of the run; None where they are not known, and the commit's own `params.yaml` is all there is.
    """
    commit = lineage.get("git.commit", "unknown")
    commands = [] if commit == "unknown" else [f"git checkout {commit}"]
    if overrides is not None:
        # without any too: the params.yaml of that commit may hold other options
        commands.append(shlex.join(["contrastive", "compose", *overrides]))
    return " && ".join([*commands, "make repro"])


def _commit() -> str:
    return git.commit() or "unknown"


def _options() -> str:
    return f"-{hashlib.sha256(PARAMS.read_bytes()).hexdigest()[:8]}" if PARAMS.is_file() else ""
