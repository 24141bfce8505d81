"""What all pictures have in common: the look of each model, and of the axes.

Colors are Okabe and Ito's, which readers with any color vision tell apart; shape or line style says it again.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from components.shared.evaluation.wording import PRETRAINING_PROBE

COLORS = {"baseline": "#D55E00", "probe": "#009E73", "finetune": "#0072B2", PRETRAINING_PROBE: "#009E73"}
MARKERS = {"baseline": "s", "probe": "^", "finetune": "o", PRETRAINING_PROBE: "^"}
DASHES = {"baseline": "--", "probe": "-.", "finetune": "-", PRETRAINING_PROBE: ":"}


# as wide as a phone's page can show with letters that can be read
WIDTH = 4.8
GRID = "#DDDDDD"


def make_figure(height: float, width: float = WIDTH) -> tuple[Figure, Any]:
    """A figure of so many inches with one pair of axes, light grid lines behind what is drawn."""
    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr,call-arg]
    axes = figure.subplots()
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize(11)
    return figure, axes
