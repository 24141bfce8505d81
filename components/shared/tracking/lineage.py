"""Which code, which data and which pipeline run something was made by."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import yaml

from components.shared import git

PARAMS = Path("params.yaml")


def lineage() -> dict[str, str]:
    """Tags that say which code, data and pipeline run this is.

    Under `dvc repro` runs of the same commit and options are one, however often it was called until all was done.
    """
    tags = {"git.commit": git.commit() or "unknown"}
    # these two change while the pipeline runs; they tell what was made, not by which code
    if git.is_dirty(".", ":!dvc.lock", ":!metrics.json"):
        tags["git.dirty"] = "true"
    pointer = Path("data.dvc")
    if pointer.exists():
        outs = (yaml.safe_load(pointer.read_text()) or {}).get("outs") or [{}]
        tags["dvc.data"] = str(outs[0].get("md5", "unknown"))
    run = os.environ.get("PIPELINE_RUN_ID") or os.environ.get("DVC_EXP_NAME")
    tags["pipeline.run"] = run or f"repro-{tags['git.commit'][:8]}{_options()}"
    return tags


def _options() -> str:
    return f"-{hashlib.sha256(PARAMS.read_bytes()).hexdigest()[:8]}" if PARAMS.is_file() else ""
