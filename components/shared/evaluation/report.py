"""The page a reviewer reads: the verdict, why, the numbers, the pictures, and how to get them again.

One HTML file with everything inside and no script, so that it can be mailed or opened from MLflow.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.shared.artifacts import Manifest
from components.shared.evaluation.gate import NAMES, NOT_ASKED, Blessing, Scores
from components.shared.evaluation.predictions import Candidate, Truth
from components.shared.evaluation.statistics import spread
from components.shared.plots.evaluation import TITLES
from components.shared.training.curves import Curve

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}: {{ verdict }}</title>
<style>
  body { font: 16px/1.5 system-ui, "Helvetica Neue", Arial, sans-serif; color: #222; background: #fff;
         max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
  h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
  .verdict { border-left: .5rem solid {{ "#0072B2" if blessing.blessed else "#D55E00" }}; background: #f6f7f8;
             padding: 1rem 1.2rem; }
  .verdict p, .verdict ul { margin: .3rem 0; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; }
  th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid #ddd; }
  th { font-weight: 600; }
  td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
  td.k { white-space: nowrap; }
  .no { color: #A63D00; font-weight: 600; }
  figure { margin: 1.2rem 0; }
  figure img { max-width: 100%; height: auto; }
  figcaption, .note { color: #555; font-size: .92rem; }
  code, pre { font: .88rem/1.45 ui-monospace, Menlo, Consolas, monospace; }
  pre { background: #f6f7f8; padding: .8rem 1rem; overflow-x: auto; }
  td code { overflow-wrap: anywhere; }
  td.k code { overflow-wrap: normal; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<div class="verdict">
  <p><strong>{{ "✓ Blessed: fit to be put up for review." if blessing.blessed
      else "✗ Not blessed: nothing will be registered." }}</strong></p>
  {% if summary %}<p>{{ summary }}</p>{% endif %}
  {% if reasons %}<ul>{% for reason in reasons %}<li>{{ reason }}</li>{% endfor %}</ul>{% endif %}
</div>

<h2>Why</h2>
<div class="wide"><table>
<tr><th>check</th><th>result</th><th class="n">value</th><th class="n">threshold</th><th>reason</th></tr>
{% for check in blessing.checks %}
<tr><td class="k">{{ check.name }}</td>
<td class="k{{ "" if check.passed else " no" }}">{{ "✓ passed" if check.passed else "– not asked" if
check.why == not_asked else "✗ failed" }}</td>
<td class="n">{{ number(check.value) }}</td><td class="n">{{ number(check.threshold) }}</td>
<td>{{ check.why }}</td></tr>
{% endfor %}
</table></div>
<p class="note">Accuracies, gains and drops are fractions of the images. The winner is chosen on validation images;
the test images choose nothing. Each model was trained once a seed.</p>

<h2>The models</h2>
{% if models %}
<div class="wide"><table>
<tr><th>model</th><th class="n">test accuracy</th><th class="n">{{ confidence }} interval</th>
<th class="n">validation accuracy</th><th class="n">seeds</th><th class="n">optimisation steps</th></tr>
{% for row in models %}
<tr><td>{{ row.title }}{% if row.name == blessing.winner %} <strong>(winner)</strong>{% endif %}</td>
<td class="n">{{ row.test }}</td><td class="n">{{ row.interval }}</td><td class="n">{{ row.validation }}</td>
<td class="n">{{ row.seeds }}</td><td class="n">{{ row.steps }}</td></tr>
{% endfor %}
</table></div>
<p class="note">Mean ± standard deviation over seeds, in per cent. The interval comes from resampling test images
and seeds. The encoder was pretrained once, so it says nothing of how another pretraining would turn out.</p>
{% else %}
<p>No model's predictions could be scored.</p>
{% endif %}

{% for picture in pictures %}
<figure><img src="data:image/png;base64,{{ picture.data }}" alt="{{ picture.caption }}">
<figcaption>{{ picture.caption }}</figcaption></figure>
{% endfor %}

<h2>The images</h2>
<div class="wide"><table>
<tr><td class="k">dataset</td><td>{{ manifest.name }}, {{ manifest.image_size }}×{{ manifest.image_size }} pixels,
{{ manifest.class_names | length }} classes</td></tr>
<tr><td class="k">images</td><td>{% for split, n in manifest.counts.items() %}{{ "{:,}".format(n) }} {{ split }}
{{- ", " if not loop.last }}{% endfor %}</td></tr>
<tr><td class="k">source</td><td><code>{{ manifest.source }}</code></td></tr>
<tr><td class="k">digest</td><td><code>{{ manifest.digest }}</code></td></tr>
<tr><td class="k">test digest</td><td><code>{{ manifest.test_digest }}</code></td></tr>
</table></div>

<h2>How to get the same again</h2>
<pre>{% if lineage["git.commit"] != "unknown" %}git checkout {{ lineage["git.commit"] }}
{% endif %}
make repro</pre>
<p class="note">with these parameters in <code>params.yaml</code>; those of the pretraining are in the run
<code>pretrain</code> of the same MLflow experiment.
{% if lineage["git.commit"] == "unknown" %}
<span class="no">The code was not in a git repository, so its version is not known.</span>
{% elif "git.dirty" in lineage %}
<span class="no">The working tree held changes that were not committed.</span>
{% endif %}
</p>
<div class="wide"><table>
<tr><th>step</th><th>MLflow run</th><th>parameters</th></tr>
{% for run in runs %}
<tr><td class="k">{{ run.step }}</td><td class="k"><code>{{ run.id }}</code></td>
<td><code>{{ run.params }}</code></td></tr>
{% endfor %}
</table></div>
</body>
</html>
"""


@dataclass(frozen=True)
class Findings:
    """Everything an evaluation found.

    Attributes:
        manifest: of the dataset.
        truth: the dataset's labels and classes.
        blessing: the verdict.
        candidates: the models that could be read.
        scores: of the models that could be scored.
        intervals: name → interval of its accuracy.
        curves: how the models learned.
        lineage: tags that say which code and data this is.
        params: of the evaluation, plain values.
        run_id: MLflow run of the evaluation.
    """

    manifest: Manifest
    truth: Truth
    blessing: Blessing
    candidates: Mapping[str, Candidate]
    scores: Mapping[str, Scores]
    intervals: Mapping[str, tuple[float, float]]
    curves: Sequence[Curve]
    lineage: Mapping[str, str]
    params: Mapping[str, Any]
    run_id: str

    def predicted(self) -> np.ndarray | None:
        """Classes that the winner's exported model answers on test, int, shape (N,); None without a winner."""
        if self.blessing.winner is None:
            return None
        return self.candidates[self.blessing.winner].exported_answers().argmax(axis=1)


def render(findings: Findings, pictures: Sequence[tuple[Path, str]]) -> str:
    """The report as HTML.

    Args:
        findings: what to tell.
        pictures: PNG files and their captions, in the order they are shown.
    """
    from jinja2 import Environment

    blessing = findings.blessing
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
    return page.render(
        title=f"Evaluation of {findings.manifest.name}",
        not_asked=NOT_ASKED,
        verdict="blessed" if blessing.blessed else "not blessed",
        blessing=blessing,
        confidence=f"{100 * blessing.confidence:g} %",
        summary=_summary(findings),
        reasons=blessing.reasons(),
        models=[_row(findings, name) for name in findings.scores],
        pictures=[
            {"data": base64.b64encode(path.read_bytes()).decode(), "caption": caption} for path, caption in pictures
        ],
        manifest=findings.manifest,
        lineage=findings.lineage,
        runs=_runs(findings),
        number=lambda value: "" if value is None else f"{value:.4g}",
    )


def _summary(findings: Findings) -> str:
    blessing = findings.blessing
    if blessing.winner is None or blessing.gain is None or blessing.interval is None:
        return ""
    winner, baseline = (findings.scores[name].accuracy.mean() for name in (blessing.winner, "baseline"))
    low, high = blessing.interval
    images = findings.manifest.counts["test"]
    return (
        f"The {NAMES[blessing.winner]} answers {winner:.1%} of {images:,} test images right, the same network "
        f"trained from scratch on the same labels {baseline:.1%}: a gain of {100 * blessing.gain:+.1f} points "
        f"({100 * blessing.confidence:g} % interval {100 * low:+.1f} to {100 * high:+.1f})."
    )


def _row(findings: Findings, name: str) -> dict[str, Any]:
    score = findings.scores[name]
    low, high = findings.intervals[name]
    return {
        "name": name,
        "title": TITLES[name],
        "test": _mean_and_spread(score.accuracy),
        "interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "validation": _mean_and_spread(score.chosen_by),
        "seeds": len(score.accuracy),
        "steps": findings.candidates[name].result.details.get("optimisation_steps", ""),
    }


def _mean_and_spread(accuracies: Any) -> str:
    return f"{100 * accuracies.mean():.1f} ± {100 * spread(accuracies):.1f}"


def _runs(findings: Findings) -> list[dict[str, str]]:
    runs = [("ingest", findings.manifest.mlflow_run_id, findings.manifest.params)]
    for name, candidate in findings.candidates.items():
        runs.append((name, candidate.result.mlflow_run_id, candidate.result.params))
    runs.append(("evaluate", findings.run_id, dict(findings.params)))
    return [{"step": step, "id": run, "params": _flat(params)} for step, run, params in runs]


def _flat(params: Mapping[str, Any]) -> str:
    from components.shared.tracking.run import flatten

    return ", ".join(f"{key}={value}" for key, value in flatten(params).items())
