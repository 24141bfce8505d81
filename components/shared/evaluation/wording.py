"""How models and gains are worded, wherever a person reads of them."""

from __future__ import annotations

import numpy as np

from components.shared.evaluation.statistics import look_alpha, smallest_gain, spread

PRETRAINING_PROBE = "pretraining probe"
# how often a gain is to be found that is there
POWER = 0.8
TITLES = {
    "baseline": "baseline, from scratch",
    "probe": "linear probe",
    "finetune": "fine-tuned model",
    PRETRAINING_PROBE: "probe during pretraining",
}


def hundredths(fraction: float, sign: str = "", form: str = ".1f") -> str:
    """A fraction in per cent or points where the unit stands beside it, such as "88.1".

    Args:
        fraction: such as 0.881.
        sign: "+" shows the sign of a positive one too.
        form: how Python's format writes the number.
    """
    # z: no "-0.0"
    return f"{100 * fraction:{sign}z{form}}"


def percent(fraction: float, form: str = ".1f") -> str:
    """A share, such as "88.1 %"; arguments as of `hundredths`."""
    return f"{hundredths(fraction, form=form)} %"


def points(fraction: float, sign: str = "") -> str:
    """A difference of accuracies in points, such as "7.1 points"; arguments as of `hundredths`."""
    return f"{hundredths(fraction, sign)} points"


def span(interval: tuple[float, float], sign: str = "") -> str:
    """Both ends of an interval, such as "85.6 to 90.7"; arguments as of `hundredths`."""
    return " to ".join(hundredths(end, sign) for end in interval)


def choice_in_words(winner: str | None, probe: float, finetune: float) -> str:
    """Why the probe wins though fine-tuning did better on held-out images; empty where it did not.

    Args:
        winner: name of the contender that was chosen.
        probe, finetune: mean accuracy on held-out images, fractions.
    """
    if winner != "probe" or finetune <= probe:
        return ""
    return (
        f"On held-out images the fine-tuned model is {points(finetune - probe)} ahead of the linear probe, less "
        "than a standard error: then the simpler model wins."
    )


def check_in_words(name: str, value: float | None) -> str:
    """What a check of the gate measured, or its threshold: points and per cent; empty where there was nothing."""
    if value is None:
        return ""
    if name == "inputs":
        return f"{value:.0f} faults"
    if name == "floor":
        return percent(value)
    if value == 0:
        return "0 points"
    # of slices the gate keeps the fall
    return points(-value if name == "slices" else value, "+")


def interval_in_words(interval: tuple[float, float], confidence: float | None) -> str:
    """Such as "95 % interval +6.1 to +10.0", of a difference of accuracies."""
    kind = "interval" if confidence is None else f"{percent(confidence, '.3g')} interval"
    return f"{kind} {span(interval, '+')}"


def gain_in_words(gain: float, interval: tuple[float, float] | None, confidence: float | None) -> str:
    """Such as "+8.1 points (95 % interval +6.1 to +10.0)"."""
    known = "" if interval is None else f" ({interval_in_words(interval, confidence)})"
    return f"{points(gain, '+')}{known}"


def mean_and_spread(accuracies: np.ndarray) -> str:
    """Such as "76.8 ± 1.2": mean and standard deviation over replicates, in per cent; of one, the mean alone."""
    mean = hundredths(float(accuracies.mean()))
    return mean if len(accuracies) < 2 else f"{mean} ± {hundredths(spread(accuracies))}"


def look_in_words(place: int | None, spent: float | None, alpha: float | None) -> str:
    """Which look at the test images a verdict is, and what it might spend; empty where there was none.

    Args:
        place: its number, from 1.
        spent: the one-sided error that it might make.
        alpha: what all looks together may.
    """
    if place is None or spent is None:
        return ""
    together = "" if alpha is None else f", of {percent(alpha, '.4g')} for all looks together"
    return f"Look {place} at these test images; it may err with {percent(spent, '.2g')}{together}."


def provable_in_words(images: int, replicates: int, alpha: float, place: int = 1) -> str:
    """The smallest gain that a look at a test set shows in 80 of 100 cases.

    Args:
        images: of the test set.
        replicates: of each side.
        alpha: what all looks together may err with.
        place: number of the look, from 1.
    """
    if replicates < 2 or images < 2:
        return f"{images:,} test images and {replicates} replicates prove nothing: nobody knows how much they vary"
    look = "a first look" if place == 1 else f"look {place}"
    gain = smallest_gain(images, replicates, look_alpha(place, alpha), POWER)
    return (
        f"with {images:,} test images and {replicates} replicates, {look} shows a true gain of "
        f"{points(gain)} in {hundredths(POWER, form='.0f')} of 100 cases, and smaller ones less often"
    )
