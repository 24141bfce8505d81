"""DVC's plots as one page that needs neither a network nor other files; DVC's own loads Vega from a network."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from components.shared.artifacts import replace_file
from components.shared.errors import UserError, first_line
from components.shared.plots.style import make_figure
from components.shared.plots.svg import dot, inline_svg
from components.shared.repository import find_root
from components.shared.templates import Picture, render

PAGE = Path("dvc_plots") / "plots.html"
_TEMPLATE = Path(__file__).parent / "templates" / "plots.html.j2"
# Okabe and Ito's, where a template names no colours; their black and yellow are lost on one page or the other
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
# of a line that tell their number
_POINTS = 60
_DASHES = ("-", "--", ":", "-.")


def write_plots(revisions: Sequence[str] = (), out: Path | None = None) -> Path:
    """Ask DVC for the plots that `dvc.yaml` lists, draw them, and write the page.

    Args:
        revisions: commits or experiments to draw in one plot, as `dvc plots diff` takes them; none: the workspace.
        out: the file; None is `dvc_plots/plots.html` in the repository.

    Returns:
        The file.

    Raises:
        UserError: there is nothing to draw, DVC knows no such revision, or the file can't be written.
    """
    root = find_root()
    out = out or root / PAGE
    with tempfile.TemporaryDirectory() as pictures:
        sections = _asked(root, pictures, revisions)
        if not sections:
            # where dvc.lock names a folder that is neither here nor in DVC's cache, DVC draws nothing else either
            sections = _asked(root, pictures, revisions, "dvc.yaml::live")
    if not sections:
        raise UserError("no plots yet: no step that draws has ended here; `make repro` runs them all")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, render(_TEMPLATE, sections=sections, revisions=revisions).encode())
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another --out") from None
    return out


def _asked(root: Path, pictures: str, revisions: Sequence[str], *targets: str) -> list[tuple[str, list[Picture]]]:
    """What DVC has data for: each plot's title and pictures; its images go into the folder `pictures` meanwhile."""
    ask = ["diff", *revisions, *(["--targets", *targets] if targets else [])] if revisions else ["show", *targets]
    command = [sys.executable, "-m", "dvc", "plots", *ask, "--json", "--out", pictures]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc plots: {first_line(done.stderr.removeprefix('ERROR: '))}")
    plots = json.loads(done.stdout).get("data", {})
    return [(title, found) for title, parts in plots.items() if (found := _pictures(title, parts))]


def _pictures(title: str, parts: Sequence[Mapping[str, Any]]) -> list[Picture]:
    """What DVC answers of one plot: a chart, or an image for each revision; nothing where it has no data."""
    found = []
    for part in parts:
        revision = ", ".join(part["revisions"])
        if part["type"] == "image":
            found.append(Picture.read(Path(part["url"]), revision, f"{title}, {revision}"))
        elif (figure := draw(part["content"])) is not None:
            found.append(Picture("", "", title, inline_svg(figure, title, title)))
    return found


def draw(chart: Mapping[str, Any]) -> Figure | None:
    """Draw a line chart as the templates in `.dvc/plots` mean it; None without numbers for both axes.

    A line for each colour and revision: the mean, and where there are several values at a place, a band of one
    standard deviation.

    Args:
        chart: a Vega-Lite specification with its data, as `dvc plots show --json` gives it.
    """
    encoding: dict[str, Any] = {}
    for part in (chart, *chart.get("layer", [])):
        encoding = {**part.get("encoding", {}), **encoding}
    x, y = (encoding.get(axis, {}) for axis in "xy")
    table = pd.DataFrame(chart["data"]["values"])
    if not {x.get("field"), y.get("field"), "rev"} <= set(table):
        return None
    table = table.assign(x=pd.to_numeric(table[x["field"]], "coerce"), y=pd.to_numeric(table[y["field"]], "coerce"))
    table = table.dropna(subset=["x", "y"])
    if table.empty:
        return None
    color = encoding.get("color", {})
    named = color["field"] if color.get("field") in table else "rev"
    scale = color.get("scale", {})
    fixed = dict(zip(scale.get("domain", []), scale.get("range", []), strict=False))
    others = cycle([color["value"]] if "value" in color else _COLORS)
    dashes = dict(zip(dict.fromkeys(table["rev"]), cycle(_DASHES), strict=False))
    figure, axes = make_figure(3.2)
    for kind, lines in table.groupby(named, sort=False):
        hue = fixed.get(kind) or next(others)
        for revision, line in lines.groupby("rev", sort=False):
            words = [_called(named, kind), *([str(revision)] if len(dashes) > 1 else [])]
            label = ", ".join(word for word in dict.fromkeys(words) if word)
            at = line.groupby("x")["y"].agg(["mean", "std", "size"]).fillna({"std": 0})
            low, high = at["mean"] - at["std"], at["mean"] + at["std"]
            axes.plot(at.index, at["mean"], dashes[revision], color=hue, label=label or None, linewidth=2)
            axes.fill_between(at.index, low, high, color=hue, alpha=0.15, linewidth=0)
            for place, mean, spread, size in at.iloc[:: -(-len(at) // _POINTS)].itertuples():
                band = f" ± {spread:.2g}" if size > 1 else ""
                said = f"{label + ', ' if label else ''}{x['field']} {place:g}: {mean:.4g}{band}"
                dot(axes, place, mean, said, color=hue, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=bool((table["x"] % 1 == 0).all())))
    axes.set_xlabel(x.get("title", x["field"]))
    axes.set_ylabel(y.get("title", y["field"]))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(-0.1, 1.0), fontsize=9, ncols=2)
    return figure


def _called(field: str, kind: Any) -> str:
    """What a colour stands for: a file by the step whose folder it is in, a revision where several are drawn."""
    if field == "rev":
        return ""
    return str(kind).partition("/")[0] if field == "filename" else f"{field} {kind}"
