"""How models and gains are worded, wherever a person reads of them."""

from __future__ import annotations

from components.shared.training.curves import PRETRAINING_PROBE

TITLES = {
    "baseline": "baseline, from scratch",
    "probe": "linear probe",
    "finetune": "fine-tuned model",
    PRETRAINING_PROBE: "probe during pretraining",
}


def points(fraction: float, sign: str = "") -> str:
    """A difference of accuracies in points; `sign="+"` shows the sign of a positive one too."""
    # + 0.0: no "-0.0"
    return f"{100 * fraction + 0.0:{sign}.1f} points"


def interval_in_words(interval: tuple[float, float], confidence: float | None) -> str:
    """Such as "95 % interval +6.1 to +10.0", of a difference of accuracies."""
    low, high = interval
    kind = "interval" if confidence is None else f"{100 * confidence:g} % interval"
    return f"{kind} {100 * low:+.1f} to {100 * high:+.1f}"


def gain_in_words(gain: float, interval: tuple[float, float] | None, confidence: float | None) -> str:
    """Such as "+8.1 points (95 % interval +6.1 to +10.0)"."""
    known = "" if interval is None else f" ({interval_in_words(interval, confidence)})"
    return f"{points(gain, '+')}{known}"
