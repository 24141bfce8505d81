"""The trained models that the gate compares, read from their folders, and what is wrong with them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.shared.artifacts import LABEL_SUSPECTS, NEAR_COPIES, Dataset, Result, read_record
from components.shared.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"
# how predictions.npz calls the images that training did not see and that chose: those of validation, or, where a
# search cross-validated, train and then validation
HELD_OUT = VALIDATION
BOTH = f"{TRAIN}+{VALIDATION}"
CONTENDERS = ("probe", "finetune")
CANDIDATES = ("baseline", "probe", "finetune")
# what reading a damaged .npz raises
_DAMAGED = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)
# softmax in float32 sums to 1 within about 1e-6 per class; half-precision heads stay below this
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Truth:
    """What the dataset itself says.

    Attributes:
        dataset_digest: of all of it.
        test_digest: of the test split.
        class_names: in the order of the labels.
        labels: split → true classes, int64, of train, validation and test.
        images: digests of the test images' content, uint64, shape (N,).
    """

    dataset_digest: str
    test_digest: str
    class_names: list[str]
    labels: dict[str, np.ndarray]
    images: np.ndarray

    @classmethod
    def of(cls, data: Dataset) -> Truth:
        """Read it from a dataset.

        Raises:
            UserError: an array is missing or does not fit the manifest.
        """
        manifest = data.manifest
        labels = {split: data.labels(split) for split in (TRAIN, VALIDATION, TEST)}
        images = image_digests(data, TEST)
        return cls(manifest.digest, manifest.test_digest, list(manifest.class_names), labels, images)

    def held_out(self, name: str) -> np.ndarray | None:
        """True classes of the images that a record calls `name`, None where there are no such."""
        if name == BOTH:
            return np.concatenate([self.labels[TRAIN], self.labels[VALIDATION]])
        return self.labels[VALIDATION] if name == VALIDATION else None


def image_digests(data: Dataset, *splits: str) -> np.ndarray:
    """The first 8 bytes of each image's content digest, uint64, shape (N,), in row order.

    Raises:
        UserError: the dataset has no list of its files.
    """
    digests = [digest for split in splits for digest in data.files(split)["digest"]]
    return np.array([int(digest[:16], 16) for digest in digests], dtype=np.uint64)


def twins_of_test(data: Dataset) -> np.ndarray:
    """Which test images have a near-copy that was learned from: bool, shape (N,)."""
    found = np.zeros(data.manifest.counts[TEST], bool)
    path = data.folder / NEAR_COPIES
    if path.exists():
        pairs = pd.read_parquet(path)
        # of test and another split, test's is the twin
        known = pairs[(pairs["twin_split"] == TEST) & (pairs["action"] == "kept") & (pairs["split"] != TEST)]
        found[known["twin_row"].to_numpy(np.int64)] = True
    return found


@dataclass(frozen=True)
class Candidate:
    """One trained model's record and predictions.

    `probabilities` maps a split to float32 (replicates, N, classes), `labels` to the true classes (N,) as its step
    saw them. Those of `HELD_OUT` may have a single row, of a search that cross-validated.
    """

    name: str
    result: Result
    probabilities: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]

    @property
    def replicates(self) -> int:
        """Number of whole trainings, which differ in their seed alone."""
        return len(self.probabilities[TEST])

    @property
    def held_out(self) -> str:
        """Which images the held-out predictions are about."""
        return str(self.result.details.get("held_out", VALIDATION))

    @property
    def exported_seed(self) -> int | None:
        """Index of the training whose model is `classifier.keras`; None if the record does not name one."""
        index = self.result.details.get("exported_seed")
        sound = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < self.replicates
        return index if sound else None

    @property
    def exported_run(self) -> str | None:
        """MLflow run of that training; None if the record does not name one."""
        runs, index = self.result.details.get("replicate_runs"), self.exported_seed
        return str(runs[index]) if isinstance(runs, list) and index is not None and index < len(runs) else None

    def exported_answers(self) -> np.ndarray:
        """Probabilities of the exported model on test: float32, shape (N, classes)."""
        return self.probabilities[TEST][self.exported_seed or 0]


def read_candidate(name: str, folder: Path) -> Candidate:
    """Read `result.json` and `predictions.npz` of one model.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = Path(folder)
    result = read_record(folder, Result)
    path = folder / "predictions.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            probabilities = {split: np.asarray(file[f"{split}_probabilities"]) for split in (HELD_OUT, TEST)}
            labels = {split: np.asarray(file[f"{split}_labels"]) for split in (HELD_OUT, TEST)}
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run the step that writes {folder.name}/ again") from None
    except _DAMAGED as error:
        what = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: damaged ({what}); run the step that writes {folder.name}/ again") from None
    return Candidate(name, result, probabilities, labels)


def read_budgets(folder: Path, truth: Truth) -> tuple[dict[int, np.ndarray], np.ndarray | None]:
    """What probe or baseline answer on test with fewer labels, and the probe's nearest neighbours.

    Returns:
        Labels per class → right answers, bool, shape (replicates, N), nothing where they can't be read; and those
        of the neighbours, or None.
    """
    labels = truth.labels[TEST]
    found = read_arrays(folder / "budgets.npz", ("labels_per_class", "predicted"))
    if found is None or found[1].shape[-1:] != labels.shape:
        return {}, None
    neighbours = read_arrays(folder / "budgets.npz", ("knn_predicted",))
    known = neighbours is not None and neighbours[0].shape[-1:] == labels.shape
    return (
        {int(size): answers == labels for size, answers in zip(*found, strict=False)},
        neighbours[0] == labels if neighbours is not None and known else None,
    )


def read_published(finetune: Path, truth: Truth) -> np.ndarray | None:
    """Right answers on test of the published training, bool, shape (replicates, N); None where there is none."""
    found = read_arrays(finetune / "published.npz", ("test_probabilities",))
    shape = (len(truth.labels[TEST]), len(truth.class_names))
    if found is None or found[0].ndim != 3 or found[0].shape[1:] != shape:
        return None
    return found[0].argmax(axis=2) == truth.labels[TEST]


def read_suspects(probe: Path) -> pd.DataFrame:
    """Labels that may be wrong, as the probe lists them, the surest first; empty where there is no list to read."""
    columns = ["path", "label", "neighbours_label", "share", "own_share"]
    try:
        return pd.read_csv(probe / LABEL_SUSPECTS, keep_default_na=False)[columns]
    except (OSError, ValueError, KeyError):
        return pd.DataFrame(columns=columns)


def read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray] | None:
    """Arrays that are shown and decide nothing; None where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return [np.asarray(file[name]) for name in names]
    except _DAMAGED:
        return None


def faults(candidate: Candidate, truth: Truth) -> list[str]:
    """Everything that makes one model's predictions unfit to be judged; empty when there is nothing."""
    found = []
    digest = candidate.result.dataset_digest
    if digest != truth.dataset_digest:
        found.append(f"made from another dataset (digest {digest[:12]}, not {truth.dataset_digest[:12]})")
    if candidate.result.step != candidate.name:
        found.append(f"written by the step {candidate.result.step!r}")
    expected = {HELD_OUT: truth.held_out(candidate.held_out), TEST: truth.labels[TEST]}
    for split, labels in expected.items():
        if labels is None:
            found.append(f"result.json: held_out = {candidate.held_out!r}; expected {VALIDATION!r} or {BOTH!r}")
            continue
        found += _array_faults(split, candidate.probabilities[split], candidate.labels[split], labels, truth)
    rows, replicates = len(candidate.probabilities[HELD_OUT]), candidate.replicates
    if not found and rows not in (1, replicates):
        found.append(f"{rows} replicates on {HELD_OUT} but {replicates} on {TEST}")
    seeds = candidate.result.details.get("replicates")
    if not found and (
        not isinstance(seeds, list) or len(seeds) != replicates or len(set(map(str, seeds))) < len(seeds)
    ):
        found.append(f"result.json: replicates = {seeds!r}; expected {replicates} different seeds, as gathered")
    if not found and candidate.name in CONTENDERS and candidate.exported_seed is None:
        index = candidate.result.details.get("exported_seed")
        found.append(f"result.json: exported_seed = {index!r}; expected 0 to {replicates - 1}")
    return [f"{candidate.name}/: {fault}" for fault in found]


def _array_faults(
    split: str, probabilities: np.ndarray, labels: np.ndarray, expected: np.ndarray, truth: Truth
) -> list[str]:
    shape = (len(expected), len(truth.class_names))
    if probabilities.ndim != 3 or probabilities.shape[1:] != shape or not len(probabilities):
        return [
            f"{split} probabilities of shape {probabilities.shape}; expected (replicates, {shape[0]}, {shape[1]})"
        ]
    if not np.issubdtype(probabilities.dtype, np.floating):
        return [f"{split} probabilities are {probabilities.dtype}, not floating point"]
    bad = int((~np.isfinite(probabilities)).any(axis=2).sum())
    if bad:
        return [f"{split} probabilities hold NaN or infinity in {bad} of {probabilities[..., 0].size} rows"]
    off = np.abs(probabilities.sum(axis=2, dtype=np.float64) - 1).max(initial=0)
    if off > _SUM_TOLERANCE or probabilities.min(initial=0) < 0:
        return [f"{split} rows are not probabilities: negative, or a sum that misses 1 by up to {off:.3g}"]
    if labels.shape != expected.shape or (labels != expected).any():
        return [f"{split} labels differ from the dataset's own"]
    return []


def comparison_faults(candidates: Mapping[str, Candidate], truth: Truth, min_replicates: int = 1) -> list[str]:
    """What makes it unfair, or impossible, to compare the models with each other."""
    found = []
    for split, labels in truth.labels.items():
        unknown = int(((labels < 0) | (labels >= len(truth.class_names))).sum())
        if unknown or not len(labels):
            found.append(f"dataset/: {unknown} of {len(labels)} {split} images without a class; all need one")
    seeds = {name: str(candidate.result.details.get("replicates")) for name, candidate in candidates.items()}
    if len(set(seeds.values())) > 1:
        found.append("different replicates: " + ", ".join(f"{name} {listed}" for name, listed in seeds.items()))
    fewest = min((candidate.replicates for candidate in candidates.values()), default=min_replicates)
    if fewest < min_replicates:
        found.append(
            f"{fewest} replicates, where gate.min_replicates = {min_replicates}; list more seeds in "
            "runtime.replicates"
        )
    about = {name: candidate.held_out for name, candidate in candidates.items()}
    if len(set(about.values())) > 1:
        found.append("held-out images differ: " + ", ".join(f"{name} {what}" for name, what in about.items()))
    if set(CONTENDERS) <= set(candidates):
        encoders = {candidates[name].result.inputs.get("encoder") for name in CONTENDERS}
        if len(encoders) > 1:
            found.append("probe/ and finetune/ start from different encoders; run `dvc repro`")
    return found
