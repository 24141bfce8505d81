"""The commands that need neither a cluster nor a registry, from `compose` to `health`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.command_line import Overrides, new_group

app = new_group("")


@app.command(name="compose")
def write_params_file(
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="default: the repository's params.yaml")] = None,
) -> None:
    """Check options and write them as params.yaml.

    A run is named by options of the groups in conf/ and by single values:

    $ contrastive compose data=cifar10 runtime.epochs=200

    `dvc repro` then does what params.yaml says; `contrastive experiment`
    does both at once.
    """
    from pipelines.experiment import write_composed

    write_composed(overrides or [], out)


@app.command()
def experiment(
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="of the experiment; DVC makes one up without it")] = None,
    judge: Annotated[bool, typer.Option("--judge", help="open the test set; this counts as a look")] = False,
    queue: Annotated[bool, typer.Option("--queue", help="leave it to `dvc queue start`")] = False,
) -> int:
    """Check options, then run them as a DVC experiment, or as several.

    $ contrastive experiment data=cifar10 runtime.epochs=200

    is `dvc exp run -S data=cifar10 -S runtime.epochs=200`, but a wrong option
    or value is told in one line before DVC touches params.yaml, and whatever
    fails later leaves params.yaml and the stages' folders as they were.

    $ contrastive experiment method=simclr,byol runtime.epochs=50,100

    runs each combination, one after the other.

    The test set stays closed unless asked with --judge: each look at it makes
    the next one worth less.
    """
    from pipelines.experiment import run_experiment

    return run_experiment(overrides or [], name, judge, queue)


@app.command()
def experiments(
    all_commits: Annotated[bool, typer.Option("--all-commits", help="also those of earlier commits")] = False,
) -> None:
    """List DVC's experiments: held-out accuracies, verdict, and what each changed.

    It is `dvc exp show` in 80 columns.
    """
    from pipelines.experiment_table import print_experiments

    print_experiments(all_commits)


@app.command()
def plots(
    revisions: Annotated[
        list[str] | None, typer.Argument(help="commits, experiments; default: the workspace")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="default: dvc_plots/plots.html of the repository")] = None,
) -> None:
    """Draw DVC's plots on one page that needs no network.

    $ contrastive plots HEAD workspace

    draws both in each plot, as `dvc plots diff` does. What trains just now is
    drawn too.
    """
    from pipelines.plots import write_plots

    print(write_plots(revisions or [], out).absolute().as_uri())


@app.command()
def summary() -> None:
    """Print what the last run found: accuracies, gain, verdict, registered version.

    It reads the finished folders evaluation/ and registration/, whoever made them.
    """
    from pipelines.summary import print_summary

    print_summary()


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="of this machine, to serve the page on")] = 5000,
) -> None:
    """Show MLflow's page: runs, curves, pictures, registered models.

    It is served on this machine alone until Ctrl-C. Where MLFLOW_TRACKING_URI
    is a server, its address is printed.
    """
    from pipelines.ui import show_ui

    show_ui(port)


@app.command()
def resend(
    folders: Annotated[list[Path] | None, typer.Argument(help="of steps; default: all of the repository")] = None,
) -> None:
    """Send what steps could not log because the tracking server was lost.

    A step that ends while the server is away leaves all that it logged in its
    folder, as tracking.json. MLFLOW_TRACKING_URI then gets what it lacks.
    Doing it again changes nothing, and nothing changes in the folder.
    """
    from components.shared.tracking.resend import resend_all

    resend_all(folders or ())


@app.command()
def health() -> None:
    """Check that this installation is whole: steps and options are there, /tmp and home are writable.

    It needs neither a server nor data, and works in any folder. A container's
    health check calls it.
    """
    from pipelines.health import check_health

    check_health()
