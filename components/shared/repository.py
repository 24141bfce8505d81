"""Where the repository is, for commands that are called in any of its folders."""

from __future__ import annotations

import os
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
