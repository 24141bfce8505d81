"""The command line as a whole: help, groups, completion, lightness, folders, what is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import typer
import yaml

from components.shared.errors import UserError
from components.shared.repository import find_root, in_repository
from components.shared.tracking.client import default_uri
from pipelines.__main__ import app, main
from pipelines.command_line import print_table, printable
from tests.helpers.repository import ROOT, make_root

HEAVY = {
    "numpy",
    "pandas",
    "pydantic",
    "yaml",
    "mlflow",
    "kfp",
    "dvc",
    "keras",
    "tensorflow",
    "hydra",
    "kubernetes",
}
SCHEDULING = ("schedule", "schedules", "unschedule")
GROUPS = ("kubeflow", "label", "registry", "review", "webhook")


def commands() -> list[list[str]]:
    """The words of every group and command."""
    found: list[list[str]] = []

    def walk(group, words):
        for name, command in group.commands.items():
            found.append([*words, name])
            if hasattr(command, "commands"):
                walk(command, [*words, name])

    walk(typer.main.get_command(app), [])
    return found


def contrastive(*arguments, cwd=ROOT, **env) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def failure(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("words", [[], *commands()], ids=" ".join)
def test_every_command_explains_itself(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: {' '.join(['contrastive', *words])} " in out
    # what it does, in a sentence, and its options
    assert len(out.splitlines()[3].split()) >= 3
    assert "--help" in out


def test_the_groups_hold_what_the_design_names():
    assert {" ".join(words) for words in commands()} == {
        *("compose", "experiment", "experiments", "plots", "summary", "ui", "resend", "health", *GROUPS),
        *("predict", "embed", "similar", "export", "push"),
        *(f"kubeflow {name}" for name in ("compile", "run", "submit", "status", "cancel", "retry", *SCHEDULING)),
        "registry prune",
        "label next",
        *(f"review {name}" for name in ("list", "show", "approve", "reject", "withdraw", "rollback", "history")),
        *(f"webhook {name}" for name in ("serve", "add", "list", "remove", "test")),
    }


@pytest.mark.parametrize("words", [[], *([group] for group in GROUPS)], ids=" ".join)
def test_a_group_alone_lists_its_commands(words, capsys):
    assert main(words) == 2
    assert "Commands" in capsys.readouterr().out


def test_help_comes_at_once():
    program = "import sys, pipelines.__main__ as line; line.main(['--help']); print('loaded', *sys.modules)"
    before = os.times()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    after = os.times()
    assert HEAVY & set(done.stdout.splitlines()[-1].split()) == set()
    # of the processor, so that a busy machine is no failure
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands(shell):
    done = contrastive(_CONTRASTIVE_COMPLETE=f"source_{shell}")
    assert done.returncode == 0 and "_CONTRASTIVE_COMPLETE" in done.stdout
    asked = contrastive(
        _CONTRASTIVE_COMPLETE="complete_bash", COMP_WORDS="contrastive kubeflow sche", COMP_CWORD="2"
    )
    assert asked.stdout.split() == ["schedule", "schedules"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["kubeflw"], "No such command 'kubeflw'"),
        (["kubeflow", "cancel"], "Missing argument 'RUN'; see contrastive kubeflow cancel --help"),
        (["review", "approve", "1"], "Missing option '--reason'"),
        (["kubeflow", "status", "--last", "many"], "'--last'"),
        (["predict", "a.png", "--tops", "3"], "No such option: --tops"),
        (["kubeflow", "status", "--timeout", "0"], "'--timeout'"),
        (["kubeflow", "run"], "--local: say it"),
    ],
)
def test_wrong_usage_is_one_line(words, said):
    with pytest.raises(UserError) as error:
        main(words)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_is_printable_is_one_line():
    assert printable("a\nb\x1b[31m\udce9 é") == "a\\nb\\x1b[31m\\udce9 é"


def test_tables_line_up_and_fill_a_terminal(capsys, monkeypatch):
    rows = [("long", "x"), ("", "[y]")]
    print_table(("A", "BB"), rows)
    shown = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in shown] == ["A     BB", "long  x", "      [y]"]
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("A", "BB"), rows)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["A", "BB"] in shown and ["long", "x"] in shown and ["[y]"] in shown


def test_wrong_usage_ends_with_status_2():
    assert "see contrastive kubeflow --help" in failure(contrastive("kubeflow", "no"))


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_a_missing_backend_is_one_line(tmp_path, package):
    (tmp_path / "model.keras").write_bytes(b"")
    (tmp_path / "image.png").write_bytes(b"")
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no', name='{package}')")
    done = contrastive(
        *("predict", "image.png", "--model", "model.keras"),
        cwd=tmp_path,
        KERAS_BACKEND=package,
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {package}: is not installed; `make env` installs")
    assert "Traceback" not in done.stderr


def test_a_module_of_our_own_that_is_missing_is_no_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pipelines.summary", None)
    with pytest.raises(ModuleNotFoundError):
        main(["summary"])


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository in whose subfolder one stands."""
    (folder := make_root(tmp_path) / "docs" / "pictures").mkdir(parents=True)
    # the sample is still to be pulled
    (tmp_path / "data.dvc").touch()
    monkeypatch.chdir(folder)
    return tmp_path


def test_the_repository_is_found_from_any_of_its_folders(root, monkeypatch):
    assert find_root() == root
    assert str(in_repository("params.yaml")) == "../../params.yaml"
    assert default_uri() == "sqlite:///../../mlflow.db"
    monkeypatch.chdir(root)
    assert (str(in_repository("params.yaml")), default_uri()) == ("params.yaml", "sqlite:///mlflow.db")


@pytest.mark.parametrize("place", [".dvc/tmp/exps/tmpab12", ".dvc/tmp/exps/standalone/tmpab12"])
def test_a_run_in_a_copy_that_dvc_deletes_is_tracked_where_it_lasts(tmp_path, monkeypatch, place):
    make_root(tmp_path)
    copy = tmp_path / place
    copy.mkdir(parents=True)
    make_root(copy)
    monkeypatch.chdir(copy)
    assert find_root() == copy
    database = default_uri().removeprefix("sqlite:///")
    assert (copy / database).resolve() == tmp_path / "mlflow.db"


def test_a_command_works_from_a_subfolder(root, capsys):
    main(["compose", "runtime.epochs=7"])
    assert capsys.readouterr().out.startswith("../../params.yaml: composed from runtime.epochs=7")
    assert yaml.safe_load((root / "params.yaml").read_text())["runtime"]["epochs"] == 7
    # what is given is seen from here
    main(["compose", "--out", "mine.yaml"])
    assert (root / "docs" / "pictures" / "mine.yaml").exists()
    with pytest.raises(UserError, match=r"^\.\./\.\./evaluation/result\.json: missing"):
        main(["summary"])


@pytest.mark.parametrize(
    "words",
    [
        ["compose"],
        ["experiment"],
        ["experiments"],
        ["plots"],
        ["summary"],
        ["resend"],
        ["kubeflow", "run", "--local"],
        ["review", "list"],
    ],
    ids=" ".join,
)
def test_outside_of_a_repository_a_command_that_needs_one_says_so(in_tmp, words):
    with pytest.raises(UserError, match=rf"^{in_tmp}: no repository of the pipeline here or above"):
        main(words)
    assert list(in_tmp.iterdir()) == []
