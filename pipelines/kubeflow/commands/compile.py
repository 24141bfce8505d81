"""Compile the pipeline for Kubeflow.

  python -m pipelines compile cluster=default data=cifar10 runtime=gpu --out pipeline.yaml

Options of the group `cluster`, and single values such as cluster.gpu.count=2, say where it runs and are fixed in
the file. All others say what it computes; they become the defaults of the pipeline's parameter `overrides`, which
every run may replace.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from components.shared.errors import UserError
from components.shared.params.composing import compose


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="such as cluster=cpu, cluster.gpu.count=2 or data=cifar10"
    )
    parser.add_argument("--out", type=Path, default=Path("pipeline.yaml"), help="default: pipeline.yaml")
    parser.add_argument(
        "--data-version", default="", help="names the state of the data; by default the run looks at the source"
    )


def main(options: argparse.Namespace) -> None:
    """Check the options and write the file.

    Raises:
        UserError: an override is not allowed, or the file can't be written.
    """
    from pipelines.kubeflow import cluster as settings

    where = [override for override in options.overrides if settings.is_cluster(override)]
    what = [override for override in options.overrides if override not in where]
    compose(what)
    cluster = settings.compose_cluster(where)
    commit = settings.commit()
    image = cluster.image_for("ingest", commit)
    if options.out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {options.out}: must end in .yaml")
    from pipelines.kubeflow.pipeline import compile_pipeline

    partial = options.out.with_name(f".{options.out.stem}.partial.yaml")
    try:
        compile_pipeline(cluster, partial, what, options.data_version, commit)
        partial.replace(options.out)
    except OSError as error:
        raise UserError(f"{options.out}: can't be written: {error.strerror}; choose another --out") from None
    finally:
        partial.unlink(missing_ok=True)
    if image.endswith(f":{commit}") and settings.uncommitted():
        print(f"warning: the image of commit {commit} lacks the changes that are not committed", file=sys.stderr)
    print(f"{options.out}: image {image}, {_gpus(cluster)}, {' '.join(what) or 'the default options'}")


def _gpus(cluster: object) -> str:
    from pipelines.kubeflow.cluster import ON_GPU, Cluster

    if not isinstance(cluster, Cluster) or not cluster.gpu.count:
        return "no GPU"
    return f"{cluster.gpu.count} {cluster.gpu.type} for each of {', '.join(ON_GPU)}"
