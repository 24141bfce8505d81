"""How the pretraining went, for the report: the step `probe` keeps it beside the online probe's curve."""

from __future__ import annotations

from pathlib import Path

from components.shared.training.curves import Curve, read_curve

# measure → what it is called
FOUND = {
    "contrastive_accuracy": "other view found among a batch's",
    "validation_probe_accuracy": "online probe on validation",
}
LOSS = {"contrastive_loss": "contrastive loss"}


def read_pretraining(path: Path) -> Curve | None:
    """Read `probe/curves.csv`; None if it is missing, empty or no such table.

    Folders of before it had the loss give the online probe alone.
    """
    return read_curve("pretraining", path, {measure: [measure] for measure in (*FOUND, *LOSS)})
