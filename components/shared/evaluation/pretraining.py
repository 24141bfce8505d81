"""How the pretraining went, for the report: the step `probe` keeps it beside the online probe's curve."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from components.shared.training.curves import Curve

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
    try:
        table = pd.read_csv(path, index_col=False)
    except (OSError, ValueError):
        return None
    rows = table.reindex(columns=["epoch", *FOUND, *LOSS]).apply(pd.to_numeric, errors="coerce")
    if rows.empty or rows["epoch"].isna().any():
        return None
    epochs = rows.replace([math.inf, -math.inf], math.nan).groupby("epoch")
    return Curve("pretraining", epochs.mean(), epochs.min(), epochs.max())
