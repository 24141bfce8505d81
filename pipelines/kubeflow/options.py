"""Options that several commands of a cluster share; light, for every command line imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from components.shared.errors import UserError


def _cluster(metavar: str | None, about: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=about, rich_help_panel="Where Kubeflow Pipelines is")


@dataclass(frozen=True)
class Access:
    """Where Kubeflow Pipelines is and how to get in; for None the environment is asked.

    `timeout` is in seconds, for an answer; `system_namespace` is that of Kubeflow Pipelines itself.
    """

    host: Annotated[str | None, _cluster("URL", "KFP_ENDPOINT or KF_PIPELINES_ENDPOINT; else the kubeconfig")] = (
        None
    )
    namespace: Annotated[
        str | None, _cluster("NAME", "KFP_NAMESPACE; of the user, where Kubeflow is shared by several")
    ] = None
    existing_token: Annotated[
        str | None, _cluster("TOKEN", "KFP_EXISTING_TOKEN, which keeps it out of the list of processes")
    ] = None
    kube_context: Annotated[str | None, _cluster("NAME", "of the kubeconfig, where no host is given")] = None
    system_namespace: Annotated[str, _cluster("NAME", "of Kubeflow Pipelines itself, where no host is given")] = (
        "kubeflow"
    )
    ssl_ca_cert: Annotated[
        str | None, _cluster("FILE", "KFP_SSL_CA_CERT; certificate that signed the server's, as PEM")
    ] = None
    no_verify_ssl: Annotated[bool, _cluster(None, "trust any certificate; for tests only", "--no-verify-ssl")] = (
        False
    )
    ui_host: Annotated[str | None, _cluster("URL", "KF_PIPELINES_UI_ENDPOINT; the page, for links")] = None
    timeout: Annotated[float, _cluster("SECONDS", "that an answer may take")] = 60


@dataclass(frozen=True)
class ReleaseOptions:
    """What is brought to a cluster, and how it runs there."""

    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OVERRIDE",
            help="such as cluster=default, cluster.gpu.count=2, data=cifar10",
            show_default=False,
        ),
    ] = None
    experiment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="made on first use; KF_PIPELINES_DEFAULT_EXPERIMENT_NAME; default: the pipeline's name",
        ),
    ] = None
    service_account: Annotated[
        str | None, typer.Option(metavar="NAME", help="of Kubernetes, which the steps run as")
    ] = None
    data_version: Annotated[
        str, typer.Option(metavar="TEXT", help="names the state of the data; else the run looks at it")
    ] = ""
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="although changes are not committed; marked so")
    ] = False


@dataclass(frozen=True)
class FollowOptions:
    """How a run is followed.

    Raises:
        UserError: a number is out of its range.
    """

    every: Annotated[float, typer.Option(metavar="SECONDS", help="between two looks at a run")] = 5
    patience: Annotated[
        float, typer.Option(metavar="SECONDS", help="go on so long without an answer of the server")
    ] = 900

    def __post_init__(self) -> None:
        for name, value in (("--every", self.every), ("--patience", self.patience)):
            if not 0 < value <= 86400:
                raise UserError(f"{name} = {value:g}: must be more than 0 and at most 86400 seconds")
