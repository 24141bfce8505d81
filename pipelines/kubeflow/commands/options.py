"""Options that several commands share."""

from __future__ import annotations

import argparse


def connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every command that talks to a cluster."""
    group = parser.add_argument_group(
        "cluster", "Where Kubeflow Pipelines is; each has a variable of the environment."
    )
    group.add_argument("--host", metavar="URL", help="KFP_ENDPOINT or KF_PIPELINES_ENDPOINT; else the kubeconfig")
    group.add_argument("--namespace", help="KFP_NAMESPACE; of the user, where Kubeflow is shared by several")
    group.add_argument(
        "--existing-token", metavar="TOKEN", help="KFP_EXISTING_TOKEN, which keeps it out of the list of processes"
    )
    group.add_argument("--kube-context", metavar="NAME", help="of the kubeconfig, where no host is given")
    group.add_argument(
        "--system-namespace", default="kubeflow", help="of Kubeflow Pipelines itself, where no host is given"
    )
    group.add_argument(
        "--ssl-ca-cert", metavar="FILE", help="KFP_SSL_CA_CERT; certificate that signed the server's, as PEM"
    )
    group.add_argument("--no-verify-ssl", action="store_true", help="trust any certificate; for tests only")
    group.add_argument("--ui-host", metavar="URL", help="KF_PIPELINES_UI_ENDPOINT; the page, for links")
    group.add_argument(
        "--timeout", type=float, default=60, metavar="SECONDS", help="that an answer may take; default: 60"
    )


def release_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the commands that bring the pipeline to a cluster."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="such as cluster=default, cluster.gpu.count=2, data=cifar10",
    )
    parser.add_argument(
        "--experiment",
        metavar="NAME",
        help="made on first use; KF_PIPELINES_DEFAULT_EXPERIMENT_NAME; default: the pipeline's name",
    )
    parser.add_argument("--service-account", metavar="NAME", help="of Kubernetes, which the steps run as")
    parser.add_argument("--data-version", default="", help="names the state of the data; else the run looks at it")
    parser.add_argument("--allow-dirty", action="store_true", help="although changes are not committed; marked so")


def following_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the commands that follow a run."""
    parser.add_argument(
        "--every", type=_seconds, default=5, metavar="SECONDS", help="between two looks at a run; default: 5"
    )
    parser.add_argument(
        "--patience",
        type=_seconds,
        default=900,
        metavar="SECONDS",
        help="go on so long without an answer of the server; default: 900",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} must be more than 0 and at most 86400 seconds")
    return value
