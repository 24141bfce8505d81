"""The commands that need neither a cluster nor a registry: compose, experiment, summary, resend, health."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.command_line import Overrides, new_group

app = new_group("")


@app.command()
def compose(
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
) -> int:
    """Check options, then run them as a DVC experiment.

    $ contrastive experiment data=cifar10 runtime.epochs=200

    is `dvc exp run -S data=cifar10 -S runtime.epochs=200`, but a wrong option
    or value is told in one line before DVC touches params.yaml.
    """
    from pipelines.experiment import run_experiment

    return run_experiment(overrides or [], name)


@app.command()
def summary(
    evaluation: Annotated[Path | None, typer.Option(help="default: the repository's evaluation/")] = None,
    registration: Annotated[Path | None, typer.Option(help="default: the repository's registration/")] = None,
) -> None:
    """Print what the last run found: accuracies, gain, verdict, registered version.

    It reads the finished folders evaluation/ and registration/, whoever made them.
    """
    from pipelines.summary import print_summary

    print_summary(evaluation, registration)


@app.command()
def resend(
    folders: Annotated[list[Path] | None, typer.Argument(help="of steps; default: all of the repository")] = None,
) -> None:
    """Send what steps could not log because the tracking server was lost.

    A step that ends while the server is away leaves all that it logged in its
    folder, as tracking.json. MLFLOW_TRACKING_URI then gets what it lacks.
    Doing it again changes nothing, and nothing changes in the folder.
    """
    from pipelines.resend import resend_all

    resend_all(folders or ())


@app.command()
def health(
    libraries: Annotated[bool, typer.Option("--libraries", help="also start the libraries; 20 seconds")] = False,
) -> None:
    """Check that this installation is whole: steps and options are there, /tmp is writable.

    It needs neither a server nor data, and works in any folder. A container's
    health check calls it. With --libraries the options compose, the steps
    import, and the last lines say which devices they see.
    """
    from pipelines.health import check_health

    check_health(libraries)
