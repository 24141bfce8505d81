"""`contrastive plots`: what DVC would draw, on a page that needs no network."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from components.shared.errors import UserError
from pipelines.__main__ import main
from pipelines.plots import draw
from tests.helpers.repository import ROOT, make_root

FILES = (
    *("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "live/.gitignore"),
    *(".dvc/config", ".dvc/plots/live.json", ".dvc/plots/models.json", ".dvc/plots/seeds.json"),
)
CURVES = "epoch,seed,loss,accuracy\n1,0,2.5,0.1\n2,0,2,0.3\n1,1,3.5,0.2\n2,1,3,0.5\n"


@pytest.fixture
def repository(in_tmp):
    """A folder with what of the repository makes DVC draw, and the baseline's curves."""
    for name in FILES:
        (in_tmp / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, in_tmp / name)
    for command in (["init"], ["add", "."], ["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-m", "Start"]):
        subprocess.run(["git", *command], capture_output=True, check=True)
    return make_root(in_tmp)


def test_the_page_has_the_charts_and_asks_no_other_machine(repository, capsys):
    (repository / "baseline").mkdir()
    (repository / "baseline" / "curves.csv").write_text(CURVES)
    (repository / "live" / "pretrain").mkdir()
    (repository / "live" / "pretrain" / "loss.tsv").write_text("epoch\tseed\tvalue\n1\t7\t4\n2\t7\t3\n")
    main(["plots"])
    page = repository / "dvc_plots" / "plots.html"
    assert capsys.readouterr().out == f"{page.as_uri()}\n"
    text = page.read_text()
    titles = re.findall("<h2>(.*?)</h2>", text)
    # no other step has ended, and nothing is said of them
    assert [title.partition(":")[0] for title in titles] == [
        "live/pretrain/loss.tsv",
        "Accuracy in training",
        "Cross-entropy in training",
    ]
    assert text.count("<svg") == 3
    assert "<title>baseline, epoch 2: 2.5 ± 0.71</title>" in text
    assert "<title>seed 7, epoch 2: 3</title>" in text
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*\"|https?://(?!www\.w3\.org)[^\"\s]*", text) == []


def test_revisions_are_drawn_in_one_plot_and_an_unknown_one_is_an_error(repository):
    (repository / "live" / "pretrain").mkdir()
    (repository / "live" / "pretrain" / "loss.tsv").write_text("epoch\tseed\tvalue\n1\t7\t4\n2\t7\t3\n")
    main(["plots", "HEAD", "workspace", "--out", "page.html"])
    assert "<h1>Plots of HEAD, workspace</h1>" in (repository / "page.html").read_text()
    with pytest.raises(UserError, match="dvc plots: unknown Git revision 'nowhere'"):
        main(["plots", "nowhere"])


LOCK = """
schema: '2.0'
stages:
  pretrain:
    cmd: python -m components.pretrain
    outs:
    - path: encoder
      hash: md5
      md5: 0123456789abcdef0123456789abcdef.dir
      size: 1
      nfiles: 1
"""


@pytest.mark.parametrize("revisions", [[], ["HEAD", "workspace"]])
def test_the_first_training_of_a_clone_is_drawn_though_the_lock_names_what_is_not_here(repository, revisions):
    (repository / "dvc.lock").write_text(LOCK)
    (repository / "live" / "pretrain").mkdir()
    (repository / "live" / "pretrain" / "loss.tsv").write_text("epoch\tseed\tvalue\n1\t7\t4\n2\t7\t3\n")
    main(["plots", *revisions])
    assert "<h2>live/pretrain/loss.tsv</h2>" in (repository / "dvc_plots" / "plots.html").read_text()


def test_a_fresh_clone_and_who_may_not_write_are_told_what_to_do(repository):
    with pytest.raises(UserError, match=r"no plots yet: .*`make repro`"):
        main(["plots"])
    (repository / "live" / "pretrain").mkdir()
    (repository / "live" / "pretrain" / "loss.tsv").write_text("epoch\tseed\tvalue\n1\t7\t4\n")
    with pytest.raises(UserError, match=r"params\.yaml/page\.html: can't be written: .*; choose another"):
        main(["plots", "--out", "params.yaml/page.html"])


def chart(color, **rows):
    names = list(rows)
    return {
        "data": {"values": [dict(zip(names, row, strict=True)) for row in zip(*rows.values(), strict=True)]},
        "encoding": {"x": {"field": "epoch", "title": "epoch"}, "color": color},
        "layer": [{"encoding": {"y": {"field": "loss", "title": "loss (nats)"}}}],
    }


def test_a_line_has_the_templates_colour_and_a_dash_for_each_revision():
    scale = {"domain": ["baseline/curves.csv", "finetune/curves.csv"], "range": ["#D55E00", "#0072B2"]}
    figure = draw(
        chart(
            {"field": "filename", "scale": scale},
            epoch=["1", "2", "1", "2"],
            loss=["2", "1", "3", ""],
            rev=["workspace", "workspace", "longer", "longer"],
            filename=["finetune/curves.csv"] * 4,
        )
    )
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"finetune, workspace", "finetune, longer"}
    assert {line.get_color() for line in lines.values()} == {"#0072B2"}
    assert len({line.get_linestyle() for line in lines.values()}) == 2
    # what is no number is not drawn
    assert list(lines["finetune, longer"].get_xdata()) == [1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss (nats)")


def test_without_numbers_nothing_is_drawn():
    assert draw(chart({"value": "#009E73"}, epoch=["1"], loss=[""], rev=["workspace"])) is None
    assert draw(chart({"value": "#009E73"}, epoch=["1"], rev=["workspace"])) is None
