"""Versions as the pipeline puts them up for review, without training anything."""

from __future__ import annotations

import json
from pathlib import Path

from components.shared.evaluation.gate import CHECKS
from components.shared.registry.versions import put_up_for_review
from components.shared.tracking.client import connect, experiment_id

CLASSES = ["dots", "rings", "waves"]
CARD = """**Fine-tuned model** on sample: conv pretrained with simclr, 4,000 unlabelled and 100 labelled images.

| model | test accuracy, mean over seeds |
|---|---|
| baseline | 43.8 % |
| finetune | 69.2 % |

Judged once on 2,000 test images; the encoder was pretrained once. Nothing is known of images from elsewhere."""


def answer(model_input: list[int]) -> list[int]:
    return model_input


def log_model(experiment: str) -> str:
    """A real, small model that names its classes; returns its `models:/m-…` address."""
    import mlflow

    connect()
    with mlflow.start_run(experiment_id=experiment_id(experiment), run_name="register"):
        logged = mlflow.pyfunc.log_model(
            name="classifier", python_model=answer, pip_requirements=[], metadata={"class_names": CLASSES}
        )
    return logged.model_uri


def evaluation_run(experiment: str, folder: Path, blessed=True) -> str:
    """A run with what `evaluate` logs of its verdict; returns its id."""
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    checks = [
        {
            "name": name,
            "value": 0.2,
            "threshold": 0.1,
            "passed": blessed or name != "floor",
            "why": f"{name} measured",
        }
        for name in CHECKS
    ]
    verdict = {
        "blessed": blessed,
        "winner": "finetune",
        "checks": checks,
        "dataset_digest": "d" * 64,
        "test_digest": "e" * 64,
        "gain": 0.244,
        "interval": [0.209, 0.277],
        "confidence": 0.95,
        "look": 1,
        "look_key": "f" * 64,
        "replicates": 3,
        "artefact": {"accuracy": 0.692, "low": 0.671, "high": 0.713},
    }
    (folder / "blessing.json").write_text(json.dumps(verdict))
    (folder / "report.html").write_text("<h1>Report</h1>")
    (folder / "accuracies.png").write_bytes(b"\x89PNG")
    with mlflow.start_run(experiment_id=experiment_id(experiment), run_name="evaluate") as run:
        mlflow.log_artifacts(str(folder))
    return run.info.run_id


def put_up(name: str, uri: str, digest: str, verdict: str | None = "blessed", **tags: str) -> str:
    """Put a version up for review as `register` does; returns its number."""
    every = {
        "winner": "finetune",
        "gain": "0.244",
        "gain_interval": "0.209 0.277",
        "confidence": "0.95",
        "dataset": "sample",
        "test_digest": "e" * 64,
        "test_accuracy": "0.692",
        "test_accuracy_interval": "0.671 0.713",
        "git_commit": "c" * 40,
        "method": "simclr",
        "encoder": "conv",
        **({"verdict": verdict} if verdict else {}),
        **tags,
    }
    return put_up_for_review(name, uri, digest, every, CARD).number
