"""What `search` chose for a step: `search/<step>.json`, and the answers on held-out images in `search/<step>.npz`.

The JSON names the answers by their digest, and holds no times and no run ids: it is all that a training depends on,
and DVC trains again only when it differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from components.shared.artifacts import Dataset, Result, read_json, read_record
from components.shared.digests import file_digest
from components.shared.errors import UserError
from components.shared.evaluation.calibration import fit_temperature, log_loss, rescale
from components.shared.evaluation.statistics import accuracy, correct
from components.shared.training.inputs import labelled
from models.classifier import Recipe
from models.methods.shared.heads import HeadOptions

# fewer held-out images say too little about confidence
FEWEST_TO_CALIBRATE = 200
Split = tuple[np.ndarray, np.ndarray]


class Choice(BaseModel):
    """What `search` chose for one step.

    `recipe`: of the baseline's and fine-tuning's training. `l2`: the linear probe's penalty, None of the solver
    that has none. `refit`: train on the validation images too. `held_out`: which images the search's answers are
    about, "validation" or "train+validation", and `answers` their digest. `capped`: the longest training that was
    tried was the best. `budgets`: labels per class that the baseline is trained with besides, or fractions, as
    `fewer_labels` takes them. `projection`: the projection head whose first layers stay below the classifier,
    None where none do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    recipe: Recipe | None = None
    l2: float | None = Field(default=None, ge=0)
    refit: bool
    held_out: Literal["validation", "train+validation"]
    capped: bool = False
    budgets: tuple[int | float, ...] = ()
    projection: HeadOptions | None = None
    answers: str = ""

    @property
    def answers_of_search(self) -> bool:
        """Whether the search's answers stand for a replicate's, whose own were trained on, or are too few."""
        return self.refit or self.held_out != "validation"


@dataclass(frozen=True)
class Calibration:
    """A temperature, and where it comes from.

    Attributes:
        temperature: that the logits are divided by.
        why: in words.
    """

    temperature: float
    why: str


class Chosen:
    """The search's choice and answers for one step.

    Args:
        folder: of `search`.
        step: baseline, finetune or probe.
        data: the dataset it must be about.

    Raises:
        UserError: it is missing, damaged, or about another dataset, or the dataset has no labels.
    """

    def __init__(self, folder: Path, step: str, data: Dataset):
        data.require_labels()
        folder = Path(folder)
        record = read_record(folder, Result)
        if record.dataset_digest != data.manifest.digest:
            raise UserError(
                f"{folder / 'result.json'}: dataset_digest = {record.dataset_digest[:12]}…: searched on another "
                f"dataset than {data.folder} ({data.manifest.digest[:12]}…); run the search step again"
            )
        self.choice = read_json(folder / f"{step}.json", Choice)
        self._answers = folder / f"{step}.npz"
        self._data = data

    def recipe(self) -> Recipe:
        """How to train.

        Raises:
            UserError: the search says nothing of it.
        """
        if self.choice.recipe is None:
            raise UserError(f"{self._answers.with_suffix('.json')}: recipe: missing; run the search step again")
        return self.choice.recipe

    def train(self) -> Split:
        """Images and labels that a replicate trains on."""
        train = labelled(self._data, "train")
        if not self.choice.refit:
            return train
        validation = labelled(self._data, "validation")
        images = np.concatenate([np.asarray(train[0]), np.asarray(validation[0])])
        return images, np.concatenate([train[1], validation[1]])

    def validation(self) -> Split | None:
        """Images and labels that a replicate does not train on, None where there are none."""
        return None if self.choice.refit else labelled(self._data, "validation")

    def held_out(self, own: np.ndarray | None) -> Split:
        """Probabilities (1, M, classes), not calibrated, and labels (M,), of images that were not trained on.

        Args:
            own: the replicate's probabilities on validation images, None where it trained on them.

        Raises:
            UserError: the search's answers are missing or damaged.
        """
        if own is not None and not self.choice.answers_of_search:
            return own[None], self._data.labels("validation")
        try:
            with np.load(self._answers, allow_pickle=False) as file:
                return np.asarray(file["probabilities"])[None], np.asarray(file["labels"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(f"{self._answers}: can't be read ({error}); run the search step again") from None


def calibrate(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """The temperature for answers on held-out images: probabilities (M, classes), labels (M,)."""
    if len(labels) < FEWEST_TO_CALIBRATE:
        why = f"{len(labels)} held-out images, where {FEWEST_TO_CALIBRATE} are needed: left as it is"
        return Calibration(1.0, why)
    return Calibration(fit_temperature(probabilities, labels), f"from {len(labels):,} held-out images")


def shipped_log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The log-loss of answers on held-out images, nats, as a model would ship them: after `calibrate`.

    Of a linear probe's penalties: they set how sure it is, which few held-out images could not put right.

    Args:
        probabilities: not yet calibrated, shape (M, classes).
        labels: shape (M,).
    """
    return log_loss(rescale(probabilities, calibrate(probabilities, labels).temperature), labels)


def validation_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy on held-out images: probabilities (1, M, classes), labels (M,)."""
    return {"validation_accuracy": float(accuracy(correct(probabilities, labels)).mean())}


def training_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy on the plain images that a replicate trained on: probabilities (N, classes), labels (N,)."""
    return {"training_accuracy": float(accuracy(correct(probabilities[None], labels)).mean())}


def write_choice(folder: Path, step: str, choice: Choice, probabilities: np.ndarray, labels: np.ndarray) -> None:
    """Write `<step>.json` and `<step>.npz`; probabilities float32 (M, classes), labels int64 (M,)."""
    answers = folder / f"{step}.npz"
    np.savez_compressed(answers, probabilities=probabilities.astype(np.float32), labels=labels.astype(np.int64))
    whole = choice.model_copy(update={"answers": file_digest(answers)})
    (folder / f"{step}.json").write_text(whole.model_dump_json(indent=2) + "\n", encoding="utf-8")
