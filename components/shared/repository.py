"""Where the repository is, for commands that are called in any of its folders, and where what lasts is kept."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from functools import cache
from pathlib import Path

from components.shared.errors import UserError


def find_root() -> Path:
    """The repository's top folder: the nearest one, from here upwards, that holds `dvc.yaml` and `conf/`.

    Raises:
        UserError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise UserError(f"{here}: no repository of the pipeline here or above (dvc.yaml and conf/); change into one")


def in_repository(name: str) -> Path:
    """Path of something in the repository, as seen from here.

    Raises:
        UserError: this is no repository.
    """
    return Path(os.path.relpath(find_root() / name))


def in_lasting_repository(name: str) -> Path:
    """Path, as seen from here, of something that outlasts a run.

    DVC's queue and its temporary runs stand in a copy of the repository, `.dvc/tmp/exps/…` in the real one, which
    they delete.

    Raises:
        UserError: this is no repository.
    """
    root = find_root()
    for folder in root.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            root = folder.parents[2]
            break
    return Path(os.path.relpath(root / name))


def state_folder(folder: Path = Path()) -> Path:
    """Where what outlasts a run is kept: a folder, or, where that can't be written, one of the user's own.

    As in an image, whose file system may be read-only. The user's own is `contrastive` in `XDG_STATE_HOME`, or in
    `.local/state` at home; a line says so. Where that can't be written either it is the folder after all, for
    whoever needs it to refuse.
    """
    # imported here: the tables that it reads take half a second to import, and most only ask for the root
    from components.shared.artifacts import is_writable

    if is_writable(folder):
        return folder
    own = Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / "contrastive"
    if not is_writable(own):
        return folder
    # of trainings side by side the first process has said it
    if multiprocessing.parent_process() is None:
        _tell(folder.absolute(), own)
    return own


@cache
def _tell(folder: Path, own: Path) -> None:
    lost = Path(tempfile.gettempdir()) in own.parents
    hint = ", and lost with a container: name a volume by XDG_STATE_HOME" if lost else ""
    print(f"{folder} can't be written: state is kept in {own}{hint}", file=sys.stderr, flush=True)
