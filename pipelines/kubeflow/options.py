"""Options that several commands of a cluster share; light, for every command line imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from pipelines.kubeflow import NAME


def _cluster(metavar: str, about: str, *environment: str, **more: Any) -> Any:
    panel = "Where Kubeflow Pipelines is"
    return typer.Option(metavar=metavar, help=about, envvar=list(environment), rich_help_panel=panel, **more)


@dataclass(frozen=True)
class Access:
    """Where Kubeflow Pipelines is and how to get in; `timeout` is in seconds, for an answer."""

    host: Annotated[
        str | None, _cluster("URL", "without it: the kubeconfig", "KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT")
    ] = None
    namespace: Annotated[
        str | None, _cluster("NAME", "of the user, where Kubeflow is shared by several", "KFP_NAMESPACE")
    ] = None
    existing_token: Annotated[
        str | None,
        _cluster(
            "TOKEN",
            "for the host; the variable keeps it out of the list of processes",
            "KFP_EXISTING_TOKEN",
            show_default=False,
        ),
    ] = None
    ssl_ca_cert: Annotated[
        str | None, _cluster("FILE", "certificate that signed the server's, as PEM", "KFP_SSL_CA_CERT")
    ] = None
    timeout: Annotated[float, _cluster("SECONDS", "that an answer may take", min=0.1, max=3600)] = 60


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
        str,
        typer.Option(metavar="NAME", help="made on first use", envvar="KF_PIPELINES_DEFAULT_EXPERIMENT_NAME"),
    ] = NAME
    service_account: Annotated[
        str | None, typer.Option(metavar="NAME", help="of Kubernetes, which the steps run as")
    ] = None
    data_version: Annotated[
        str, typer.Option(metavar="TEXT", help="names the state of the data; else the run looks at it")
    ] = ""
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="although changes are not committed; marked so")
    ] = False
    check_image: Annotated[
        bool, typer.Option("--check-image", help="first ask the registry whether it has the image")
    ] = False
