"""How baseline and fine-tuning are best trained: looked for in one space, for both at the same points."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from components.shared.artifacts import Dataset, Result, read_record
from components.shared.digests import value_digest
from components.shared.errors import UserError
from components.shared.evaluation.calibration import calibrated_log_loss, log_loss
from components.shared.params.schema import Params, from_plain, to_plain
from components.shared.plots.grids import draw_rows
from components.shared.progress import Progress
from components.shared.step import Work
from components.shared.training.augmented import augmented_features
from components.shared.training.checkpoints import Finished
from components.shared.training.choice import FEWEST_TO_CALIBRATE, Choice, shipped_log_loss, write_choice
from components.shared.training.devices import on_devices, precision_here
from components.shared.training.inputs import labelled, load_encoder, pretrained_weights
from components.shared.training.side_by_side import side_by_side
from components.shared.training.trainers import supervised_trainer
from models import methods
from models.augmentation import Augmentation, augment
from models.classifier import Recipe, SupervisedTrainer, predict
from models.probes import ProbeOptions, fit_probe, penalties

SIDES = ("baseline", "finetune")
# which images answered without having been trained on; predictions.npz and the records call them so
VALIDATION, BOTH = "validation", "train+validation"
# a rate or a decay that is widened goes on by the proportion of the last two, and at most by this
_FACTOR = 10.0
AUGMENTATIONS = "augmentations.png"
# of `<side>.csv`: how the chosen training did on the held-out images while it went on
CURVE = ("epoch", "validation_loss", "validation_accuracy")
_DRAWN = 10


@dataclass(frozen=True)
class Point:
    """What one trial of the search is: everything in which trainings differ there.

    Attributes:
        augmentation: "weak" or "views".
        learning_rate, weight_decay, epochs: as of a recipe.
    """

    augmentation: str
    learning_rate: float
    weight_decay: float
    epochs: int


@dataclass(frozen=True)
class Trial:
    """What one side did at a point, on held-out images.

    Attributes:
        log_loss: nats, at the best temperature; infinite where the training's loss was no number.
        accuracy: fraction.
        probabilities: float32, shape (M, classes); None where there are none.
        curve: a row for some twenty-five points of the training, see `CURVE`: float64, (P, 3); None likewise.
        error: why there are none.
    """

    log_loss: float
    accuracy: float
    probabilities: np.ndarray | None
    curve: np.ndarray | None = None
    error: str = ""


class HeldOut:
    """Labelled images in folds: each is answered once by a training that did not see it.

    Args:
        data: the dataset.
        params: reads `supervised.search`, and `method`: cross-validation would be unfair where the pretraining has
            seen the labels of train.
        seed: decides the folds.
        folds: how many; None: as a trial has. One where validation images are enough.

    Attributes:
        name: `VALIDATION`, or `BOTH` where train and then validation were cross-validated.
        images: those that are held out in turn, and `labels` theirs, int64, shape (M,).
    """

    def __init__(self, data: Dataset, params: Params, seed: int, folds: int | None = None):
        space = params.supervised.search
        train, validation = labelled(data, "train"), labelled(data, VALIDATION)
        few = len(validation[1]) < space.cross_validate_below
        if few and not methods.uses_labels(params.method):
            self.name = BOTH
            self.images = np.concatenate([np.asarray(train[0]), np.asarray(validation[0])])
            self.labels = np.concatenate([train[1], validation[1]])
            self._fold = stratified_folds(self.labels, folds or space.folds, seed)
            self._train = self.images, self.labels
        else:
            self.name = VALIDATION
            self.images, self.labels = validation
            self._fold = np.zeros(len(self.labels), np.int64)
            self._train = train

    @property
    def count(self) -> int:
        """Number of folds."""
        return int(self._fold.max(initial=0)) + 1

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of `train` to learn from and rows of the held-out images to answer, for each fold."""
        for fold in range(self.count):
            answered = np.flatnonzero(self._fold == fold)
            learned = np.flatnonzero(self._fold != fold) if self.name == BOTH else np.arange(len(self._train[1]))
            yield learned, answered

    def train(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels to learn from."""
        images, labels = self._train
        return (images, labels) if len(rows) == len(labels) else (images[rows], labels[rows])


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, int64, shape (N,): of each class about as many in each, at most one more."""
    rng = np.random.default_rng((seed, folds))
    found = np.empty(len(labels), np.int64)
    start = 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        # where one class ends the next one goes on, so that the folds are equally large too
        found[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    return found


class Search:
    """Tries points on both sides at once, so that the two have the same space and the same number of trials.

    Args:
        data: the dataset.
        params: reads encoder, supervised, method and runtime.
        seed: of all trainings.
        pretrained: the weights that fine-tuning starts from, as `pretrained_weights` gives them.
        more_epochs: by which the baseline trains longer than fine-tuning at each point, see `equal_total_epochs`.
        elsewhere: makes trials of as many points, sides and folds at once, in other processes; None: here.
        finished: keeps what trials have found; None: nothing.
    """

    def __init__(
        self,
        data: Dataset,
        params: Params,
        seed: int,
        pretrained: list[np.ndarray],
        more_epochs: int = 0,
        elsewhere: Callable[[Sequence[Point], Sequence[str], Sequence[int]], Iterable[Trial]] | None = None,
        finished: Finished | None = None,
    ):
        self.data, self.params, self.seed = data, params, seed
        self.options = params.supervised
        self.held_out = HeldOut(data, params, seed)
        self.trials: dict[Point, dict[str, Trial]] = {}
        # of the chosen points, with more folds
        self._final: dict[str, Trial] = {}
        self._more_epochs = {"baseline": more_epochs, "finetune": 0}
        self._start = {"baseline": None, "finetune": pretrained}
        self._elsewhere = elsewhere
        self._finished = finished or Finished()
        self._progress: Progress

    def run(self) -> None:
        """Try all points. Augmentation and rate first, then decay, then length: each at the best so far.

        Where images are cross-validated and enough to calibrate by, the chosen trainings answer them again in more
        folds: with half of the images a training is less right, and less sure of itself, than the replicates will
        be, which learn from all. So it would be calibrated for another model.

        Raises:
            UserError: no trial of a side had a finite loss.
        """
        space = self.options.search
        self._progress = Progress("search", 0, "trial")
        decay, short = space.weight_decays[0], space.epochs[0]
        self._try(
            *(
                Point(augmentation, rate, decay, short)
                for augmentation in space.augmentations
                for rate in space.learning_rates
            )
        )
        for side in SIDES:
            self._require(side)
        self._widen("learning_rate", space.learning_rates)
        self._try(*(replace(best, weight_decay=v) for best in self._best_points() for v in space.weight_decays[1:]))
        self._widen("weight_decay", space.weight_decays)
        self._try(*(replace(best, epochs=epochs) for best in self._best_points() for epochs in space.epochs[1:]))
        enough = len(self.held_out.labels) >= FEWEST_TO_CALIBRATE
        if self.held_out.name == BOTH and enough and space.final_folds > space.folds:
            asked = [(self.chosen(side), side) for side in SIDES]
            for (_, side), trial in self._make(asked, space.final_folds):
                if not trial.error:
                    self._final[side] = trial
        self._progress.close()

    def chosen(self, side: str) -> Point:
        """The point with the lowest calibrated log-loss; the baseline's is never shorter than fine-tuning's."""
        if side == "baseline":
            least = self.chosen("finetune").epochs
            best = self._best(side, lambda point: point.epochs >= least)
            # a point of that length was tried, since each is tried on both sides
            return best if best is not None else self.chosen("finetune")
        return self._require(side)

    def capped(self, side: str) -> bool:
        """Whether the longest training that was tried was the best, so that a longer one might be better still."""
        epochs = self.options.search.epochs
        return len(epochs) > 1 and self.chosen(side).epochs == epochs[-1]

    def training(self, side: str, point: Point) -> Point:
        """A side's training at a point: the point, but that the baseline's may be longer."""
        return replace(point, epochs=point.epochs + self._more_epochs[side])

    def recipe(self, side: str, point: Point) -> Recipe:
        """The whole training of a side at a point."""
        options, point = self.options, self.training(side, point)
        return Recipe(
            augmentation=self._augmentation(point.augmentation),
            **{name: value for name, value in asdict(point).items() if name != "augmentation"},
            **{name: getattr(options, name) for name in ("batch_size", "optimizer", "schedule", "milestones")},
        )

    def final(self, side: str) -> Trial:
        """The chosen training on the held-out images, in as many folds as there are of it."""
        return self._final.get(side) or self.trials[self.chosen(side)][side]

    def table(self, side: str) -> list[dict[str, Any]]:
        """A row for each trial of a side, in the order in which they were made."""
        return [
            {**asdict(point), "log_loss": trials[side].log_loss, "accuracy": trials[side].accuracy}
            for point, trials in self.trials.items()
        ]

    def _augmentation(self, name: str) -> Augmentation:
        return self.options.weak if name == "weak" else self.params.method.augmentation

    def _try(self, *points: Point) -> None:
        new = [point for point in points if point not in self.trials]
        for (point, side), trial in self._make(
            [(point, side) for point in new for side in SIDES], self.held_out.count
        ):
            self.trials.setdefault(point, {})[side] = trial

    def _make(self, asked: Sequence[tuple[Point, str]], folds: int) -> Iterator[tuple[tuple[Point, str], Trial]]:
        """Each of what is asked for with its trial, in order, while progress is told."""
        self._progress.more(len(asked))
        make = self._elsewhere or partial(map, self.trial)
        found = make([point for point, _ in asked], [side for _, side in asked], [folds] * len(asked))
        for (point, side), trial in zip(asked, found, strict=True):
            if trial.error:
                print(f"search: {side} at {asdict(point)}: {trial.error}; left out", flush=True)
            shown = {name: value for name, value in asdict(point).items() if name != "augmentation"}
            self._progress.step({**shown, "log_loss": trial.log_loss})
            yield (point, side), trial

    def trial(self, point: Point, side: str, folds: int) -> Trial:
        """Train a side as a point says, and answer the held-out images; once only, where that is kept."""
        name = f"{side}-{value_digest({**asdict(self.training(side, point)), 'folds': folds})[:16]}"
        found = self._finished.once(name, partial(self._try_out, point, side, folds))
        loss, accuracy, error = (found[what].item() for what in ("log_loss", "accuracy", "error"))
        return Trial(loss, accuracy, found.get("probabilities"), found.get("curve"), error)

    def _try_out(self, point: Point, side: str, folds: int) -> dict[str, Any]:
        """The same, made now: what a trial is, by name."""
        same = folds == self.held_out.count
        held_out = self.held_out if same else HeldOut(self.data, self.params, self.seed, folds)
        recipe = self.recipe(side, point)
        trainer = supervised_trainer(
            self.data, self.params, self.params.method.projection, recipe.augmentation, recipe.optimizer,
            self._start[side] is not None,
        )  # fmt: skip
        answers = np.zeros((len(held_out.labels), self.data.classes), np.float32)
        curve: dict[int, np.ndarray] = {}
        for learned, answered in held_out.folds():
            images, labels = held_out.images[answered], held_out.labels[answered]
            try:
                trainer.fit(
                    recipe, self.seed, held_out.train(learned), self._start[side],
                    on_epoch=partial(_watch, curve, trainer, images, labels),
                    class_weight=self.options.class_weight,
                    head_start=self.options.head_start,
                )  # fmt: skip
            except FloatingPointError as error:
                return {"log_loss": float("inf"), "accuracy": 0.0, "error": str(error)}
            answers[answered] = trainer.probabilities(images)
        accuracy = float((answers.argmax(axis=1) == held_out.labels).mean())
        loss = calibrated_log_loss(answers, held_out.labels)
        points = [(epoch, *sums / len(held_out.labels)) for epoch, sums in sorted(curve.items())]
        found = {"probabilities": answers, "curve": np.array(points)}
        return {"log_loss": loss, "accuracy": accuracy, "error": "", **found}

    def _best(self, side: str, allowed: Callable[[Point], bool] = lambda point: True) -> Point | None:
        known = {point: trials[side].log_loss for point, trials in self.trials.items() if allowed(point)}
        finite = {point: loss for point, loss in known.items() if np.isfinite(loss)}
        # the first of equals, which is the smaller and shorter one
        return min(finite, key=finite.__getitem__) if finite else None

    def _require(self, side: str) -> Point:
        best = self._best(side)
        if best is None:
            rates = sorted({point.learning_rate for point in self.trials})
            raise UserError(
                f"supervised.search.learning_rates = {rates}: the loss of {side} became NaN with each; add smaller"
            )
        return best

    def _best_points(self) -> list[Point]:
        return list(dict.fromkeys(self._require(side) for side in SIDES))

    def _widen(self, name: str, grid: tuple[float, ...]) -> None:
        """Go on beyond an end of the grid where the best of a side lies; of a single value nobody knows an end."""
        tried = sorted(grid)
        for _ in range(self.options.search.widen if len(grid) > 1 else 0):
            beyond: dict[Point, float] = {}
            for best in self._best_points():
                if (value := next_beyond(tried, getattr(best, name))) is not None:
                    beyond[best] = value
            if not beyond:
                return
            self._try(*(_with(best, name, value) for best, value in beyond.items()))
            tried = sorted({*tried, *beyond.values()})


def _watch(
    curve: dict[int, np.ndarray],
    trainer: SupervisedTrainer,
    images: np.ndarray,
    labels: np.ndarray,
    epoch: int,
    logs: Mapping[str, float],
) -> None:
    """Add to a point of a curve the log-losses and the number of right answers on a fold's held-out images."""
    answers = trainer.probabilities(images)
    sums = np.array([len(labels) * log_loss(answers, labels), (answers.argmax(axis=1) == labels).sum()])
    curve[epoch] = curve.get(epoch, 0) + sums


def _with(point: Point, name: str, value: Any) -> Point:
    return replace(point, **{name: value})


def next_beyond(tried: list[float], best: float) -> float | None:
    """The next value beyond the end at which the best lies, in proportion; None inside, and below 0, a bound.

    Args:
        tried: values so far, ascending, at least two.
        best: one of them.
    """
    low, high = tried[0], tried[-1]
    if best == high:
        return high * (min(high / tried[-2], _FACTOR) if tried[-2] > 0 else _FACTOR)
    if best == low and low > 0:
        return low / min(tried[1] / low, _FACTOR)
    return None


@dataclass(frozen=True)
class ProbeSearch:
    """The linear probe's penalty by log-loss on held-out images, as `shipped_log_loss` has it.

    Attributes:
        l2: the penalty; None of the solver that has none.
        trials: a row for each.
        probabilities: of the chosen one on the held-out images, float32, shape (M, classes).
    """

    l2: float | None
    trials: list[dict[str, Any]]
    probabilities: np.ndarray


def search_probe(
    encoder: keras.Model, held_out: HeldOut, options: ProbeOptions, classes: int, seed: int
) -> ProbeSearch:
    """Choose the probe's penalty on the features of a frozen encoder.

    Args:
        encoder: from uint8 images to features.
        held_out: the images.
        options: of the probe.
        classes: number of classes.
        seed: of the first weights.
    """
    answered = predict(encoder, held_out.images)
    folds = []
    for rows, to in held_out.folds():
        images, labels = held_out.train(rows)
        features = answered[rows] if held_out.name == BOTH else predict(encoder, images)
        copies = augmented_features(encoder, images, options.augmentation, options.augmented_copies, seed)
        folds.append((np.concatenate([features, *copies]), np.tile(labels, 1 + len(copies)), to))
    tried: list[tuple[float, ProbeSearch]] = []
    trials: list[dict[str, Any]] = []
    for l2 in penalties(options):
        found = np.zeros((len(held_out.labels), classes), np.float32)
        for features, labels, to in folds:
            fitted = fit_probe(features, labels, classes, options, l2, seed)
            found[to] = fitted.probabilities(answered[to])
        loss = shipped_log_loss(found, held_out.labels)
        trials.append(
            {"l2": l2, "log_loss": loss, "accuracy": float((found.argmax(axis=1) == held_out.labels).mean())}
        )
        tried.append((loss, ProbeSearch(l2, trials, found)))
    # the first of equals
    return min(tried, key=lambda each: each[0])[1]


def _draw_augmentations(data: Dataset, params: Params, seed: int) -> Figure:
    """Some labelled images, changed weakly and twice as the pretraining sees them."""
    images, _ = labelled(data, "train")
    shown = np.asarray(images[np.unique(np.linspace(0, len(images) - 1, _DRAWN).astype(int))])
    generator = keras.random.SeedGenerator(seed)
    rows = [("original", list(shown))]
    policies = {"weak": params.supervised.weak, "view 1": params.method.augmentation}
    for name, policy in {**policies, "view 2": params.method.augmentation}.items():
        rows.append((name, list(np.asarray(augment(shown, policy, generator)))))
    return draw_rows(rows)


@cache
def _search_there(dataset: Path, encoder: Path, plain: str, seed: int, kept: Path | None) -> Search:
    params = from_plain(json.loads(plain), "search")
    data = Dataset(dataset)
    start = _start(encoder, load_encoder(encoder, data, params.encoder), params)
    return Search(data, params, seed, start, _more_epochs(encoder, params), finished=Finished(kept))


def _start(folder: Path, encoder: keras.Model, params: Params) -> list[np.ndarray]:
    return pretrained_weights(folder, encoder, params.method.projection, params.supervised.projection_layers)


def _more_epochs(folder: Path, params: Params) -> int:
    """By how many epochs the baseline trains longer: the pretraining's, where the totals shall be equal."""
    if not params.supervised.search.equal_total_epochs:
        return 0
    epochs = read_record(folder, Result).details.get("epochs")
    if not isinstance(epochs, int):
        raise UserError(
            f"{folder / 'result.json'}: epochs = {epochs}: expected a number; run the pretrain step again"
        )
    return epochs


def _trial_there(
    dataset: Path, encoder: Path, plain: str, seed: int, kept: Path | None, point: Point, side: str, folds: int
) -> Trial:
    """A trial in a process beside others, which keeps what it made for the last one."""
    search = _search_there(dataset, encoder, plain, seed, kept)
    with _on_devices(search.data, search.params):
        return search.trial(point, side, folds)


def _on_devices(data: Dataset, params: Params) -> AbstractContextManager[int]:
    batch = min(params.supervised.batch_size, data.manifest.counts["train"])
    return on_devices("search", params.runtime.devices, batch, "supervised.batch_size")


def run_search(
    data: Dataset,
    folder: Path,
    encoder: keras.Model,
    params: Params,
    seed: int,
    work: Work,
    finished: Finished,
) -> Result:
    """Search, and write the folder.

    Args:
        data: the dataset.
        folder: of the first replicate's encoder.
        encoder: which is there, from uint8 images to features.
        params: reads method, encoder, supervised, probe and runtime.
        seed: of all trials.
        work: the step in progress.
        finished: keeps what trials have found.

    Raises:
        UserError: a labelled split is empty, the devices can't be used, or no trial of a side had a finite loss.
    """
    space = params.supervised.search
    at_once = len(SIDES) * len(space.augmentations) * len(space.learning_rates)
    there = partial(_trial_there, data.folder, folder, json.dumps(to_plain(params)), seed, finished.folder)
    with (
        _on_devices(data, params) as devices,
        side_by_side(params.runtime.threads, at_once) as pool,
    ):
        start = _start(folder, encoder, params)
        more = _more_epochs(folder, params)
        search = Search(data, params, seed, start, more, partial(pool.map, there) if pool else None, finished)
        search.run()
    held_out = search.held_out
    probed = search_probe(encoder, held_out, params.probe, data.classes, seed)
    refit = params.supervised.refit and data.manifest.cuts_validation
    common = {"refit": refit, "held_out": held_out.name}
    for side in SIDES:
        _write_side(work.out, side, search, common)
    write_choice(work.out, "probe", Choice(l2=probed.l2, **common), probed.probabilities, held_out.labels)
    for path in sorted(work.out.iterdir()):
        work.run.file(path)
    _draw_augmentations(data, params, seed).savefig(work.out / AUGMENTATIONS, dpi=100)
    work.run.file(work.out / AUGMENTATIONS, "pictures")
    trials = {side: search.table(side) for side in SIDES}
    best = {side: search.final(side) for side in SIDES}
    return work.finish(
        data.manifest.digest,
        {
            **{f"{side}_validation_log_loss": trial.log_loss for side, trial in best.items()},
            **{f"{side}_validation_accuracy": trial.accuracy for side, trial in best.items()},
        },
        seed=seed,
        trials={**trials, "probe": probed.trials},
        chosen={
            **{side: asdict(search.training(side, search.chosen(side))) for side in SIDES},
            "probe": {"l2": probed.l2},
        },
        baseline_more_epochs=more,
        capped=[side for side in SIDES if search.capped(side)],
        held_out=held_out.name,
        held_out_images=len(held_out.labels),
        refit=refit,
        folds=held_out.count,
        devices=devices,
        precision=precision_here(params.runtime.precision),
    )


def _write_side(out: Path, side: str, search: Search, common: Mapping[str, Any]) -> None:
    """What the search chose for a side, its answers, and how it did on the held-out images while it went on."""
    params, point, final = search.params, search.chosen(side), search.final(side)
    choice = Choice(
        recipe=search.recipe(side, point),
        capped=search.capped(side),
        budgets=params.probe.label_budgets if side == "baseline" else (),
        projection=params.method.projection if params.supervised.projection_layers else None,
        **common,
    )
    if final.probabilities is None:
        raise ValueError(f"{side}: the chosen trial has no answers")  # one with a finite loss has
    write_choice(out, side, choice, final.probabilities, search.held_out.labels)
    curve = pd.DataFrame(final.curve, columns=list(CURVE)).astype({"epoch": int})
    curve.to_csv(out / f"{side}.csv", index=False)
