"""Composing options into params.yaml, and running them as a DVC experiment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException

from components.shared.artifacts import replace_file
from components.shared.errors import UserError
from components.shared.params.composing import compose_params, write_params
from components.shared.repository import find_root, in_repository
from components.shared.sources import is_address, is_published
from components.shared.sources.files import how_to_get
from components.shared.training.start import find_start, is_in_mlflow

OPEN_TEST = "gate.open_test"


def write_composed(overrides: Sequence[str], out: Path | None = None) -> None:
    """Compose and check; write only what is valid.

    Args:
        overrides: such as `data=cifar10` or `runtime.epochs=200`.
        out: the file; None is the repository's params.yaml.

    Raises:
        UserError: an override is not allowed, what it names is not there, or the file can't be written.
    """
    out = out or in_repository("params.yaml")
    values = _checked(overrides, find_root())
    try:
        write_params(values, out)
    except OSError as error:
        raise UserError(f"{out}: can't be written: {error.strerror}; choose another --out") from None
    print(f"{out}: composed from {' '.join(overrides) or 'the defaults'}")


def run_experiment(
    overrides: Sequence[str], name: str | None = None, judge: bool = False, queue: bool = False
) -> int:
    """Check the options and hand them to DVC, one experiment after the other; returns DVC's exit status.

    An experiment that fails or is stopped leaves params.yaml, dvc.lock and the folders of the stages as they were,
    and ends the sweep.

    Args:
        overrides: such as `data=cifar10`, or `method=simclr,byol` for an experiment with each.
        name: of the experiment, of several with -1, -2, … behind; None lets DVC make one up.
        judge: open the test set, which counts as a look; otherwise validation numbers are all there is.
        queue: leave them to `dvc queue start`.

    Raises:
        UserError: an override is not allowed, what it names is not there, or there is no git repository to keep
            experiments in.
    """
    root = find_root()
    require_git(root)
    if any(OPEN_TEST in override for override in overrides):
        raise UserError(f"{OPEN_TEST}: an experiment opens the test set with --judge, and only so")
    experiments = [[*one, f"{OPEN_TEST}={str(judge).lower()}"] for one in _spelled_out(overrides)]
    paths = [_checked(one, root)["data"]["path"] for one in experiments]
    options = ["--queue"] if queue else []
    for number, one in enumerate(experiments, 1):
        if len(experiments) > 1:
            print(f"experiment {number} of {len(experiments)}: {' '.join(one[:-1])}", flush=True)
        several = f"-{number}" if len(experiments) > 1 else ""
        named = ["--name", name + several] if name else []
        before = _Workspace(root)
        status = _dvc(root, "exp", "run", *options, *named, *(part for value in one for part in ("-S", value)))
        if status:
            before.restore()
            if _is_to_be_pulled(root, path := paths[number - 1]):
                file = f"{Path(path).parts[0]}.dvc"
                told = f"`dvc pull {file}` gets it from your remote, the sample with `--remote sample`"
                print(f"data.path = {path}: not here yet; {told}", file=sys.stderr)
            return status
    if queue:
        print(f"queued: {len(experiments)}; `dvc queue start` runs them, `dvc queue status` tells how they are")
    elif not judge:
        print("not judged: the test set stayed closed; the same command with --judge opens it and counts as a look")
    return 0


def require_git(root: Path) -> None:
    """Check that DVC has a git repository to keep experiments in.

    Raises:
        UserError: there is none, or DVC is told to do without.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        raise UserError(
            f"{root}: is no git repository, in which DVC keeps experiments: `git init && git add -A && "
            "git commit -m Start && make env` makes it one; `contrastive compose` and `dvc repro` do without"
        )
    from dvc.config import Config

    if Config(str(root / ".dvc"))["core"].get("no_scm"):
        raise UserError(f"{root / '.dvc'}: DVC is told to do without git (core.no_scm); `make env` undoes it")


def _checked(overrides: Sequence[str], root: Path) -> dict[str, Any]:
    """The composed values, if the images and the weights that they name are there."""
    params, values = compose_params(overrides, root / "conf")
    data, weights = params.data, params.encoder.weights
    try:
        elsewhere = is_published(data.source) or is_address(data.path) or _is_to_be_pulled(root, data.path)
        # the steps stand in the repository's top folder, wherever this is called
        if not (elsewhere or (root / data.path).exists()):
            said = "" if Path.cwd() == root else f" below {root}"
            raise UserError(f"data.path = {data.path}: nothing there{said}; {how_to_get(Path(data.path))}")
        if weights is not None and not (is_in_mlflow(weights) or is_address(weights)):
            find_start(root / weights, weights)
    except OSError as error:
        raise UserError(f"{error.filename}: can't be read: {error.strerror}") from None
    return values


def _is_to_be_pulled(root: Path, path: str) -> bool:
    """Whether `make repro` brings it: it lies in a folder that DVC tracks and that a fresh clone lacks."""
    top = root / Path(path).parts[0] if Path(path).parts else root
    return not top.exists() and top.with_name(f"{top.name}.dvc").exists()


def _spelled_out(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each experiment of a sweep, as DVC itself spells it out."""
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import get_hydra_sweeps

    try:
        sweeps = [sweep[""] for sweep in get_hydra_sweeps({"": overrides})]
    except (HydraException, DvcException):
        # composing tells what is wrong with it
        sweeps = []
    return sweeps if len(sweeps) > 1 else [list(overrides)]


class _Workspace:
    """What an experiment changes, to be put back if it fails: two files of DVC's, and the outputs of the stages."""

    def __init__(self, root: Path):
        self.root = root
        lock = root / "dvc.lock"
        stages = yaml.safe_load(lock.read_bytes())["stages"].values() if lock.exists() else []
        outputs = [root / out["path"] for stage in stages for out in stage.get("outs", [])]
        self.folders = {path: _identity(path) for path in outputs if path.is_dir()}
        files = [root / "params.yaml", lock, *(path for path in outputs if path.is_file())]
        self.files = {path: path.read_bytes() if path.exists() else None for path in files}

    def restore(self) -> None:
        """Put back the files; folders that were replaced or removed come from DVC's cache."""
        for path, content in self.files.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != content:
                replace_file(path, content)
        changed = [path for path, identity in self.folders.items() if _identity(path) != identity]
        names = [str(path.relative_to(self.root)) for path in changed]
        if names and _dvc(self.root, "checkout", "--quiet", "--force", *names):
            print(f"not in DVC's cache, so not as before: some of {', '.join(names)}", file=sys.stderr)
        print("params.yaml, dvc.lock and the stages' outputs are as before the experiment", file=sys.stderr)


def _identity(path: Path) -> tuple[int, int] | None:
    """Another one after a step has replaced its folder; None without the folder."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _dvc(root: Path, *arguments: str) -> int:
    # the stages call `python`: this environment's, also where it is not activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", *arguments]
    with subprocess.Popen(command, cwd=root, env={**os.environ, "PATH": path}) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # DVC got the signal too, and ends its stage
                continue
