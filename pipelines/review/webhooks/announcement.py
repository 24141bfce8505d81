"""The one line that tells a reviewer of a new challenger."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from urllib.parse import quote

from pipelines.inference.image_files import shown


def announcement(model: str, version: str, tags: Mapping[str, str], page: str) -> str:
    """Model, version, verdict, gain, where to look, and the command that shows it.

    Args:
        model: name of the registered model, which need not be that of params.yaml.
        version: its number.
        tags: of the version, as `register` sets them; what is missing is said to be unknown or left out.
        page: address of MLflow's page.
    """
    verdict = tags.get("verdict", "verdict unknown, not registered by the pipeline")
    address = f"{page}/#/models/{quote(model, safe='')}/versions/{version}"
    said = ", ".join(filter(None, [verdict, _gain(tags)]))
    return shown(
        f"{model} version {version} waits for review: {said} | {address} | "
        f"python -m pipelines review show {version} --model {shlex.quote(model)}"
    )


def _gain(tags: Mapping[str, str]) -> str:
    gain = _points(tags.get("gain", ""))
    if len(gain) != 1:
        return ""
    interval, confidence = _points(tags.get("gain_interval", "")), _points(tags.get("confidence", ""))
    if len(interval) != 2 or len(confidence) != 1:
        return f"gain {gain[0]:+.1f} points"
    return f"gain {gain[0]:+.1f} points ({confidence[0]:g} % interval {interval[0]:+.1f} to {interval[1]:+.1f})"


def _points(text: str) -> list[float]:
    """Fractions as percentages; nothing where one of them is not a number."""
    try:
        return [100 * float(part) for part in text.split()]
    except ValueError:
        return []
