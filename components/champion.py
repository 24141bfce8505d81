"""Champion: ask the registry which model the next one must not fall behind."""

from __future__ import annotations

from pathlib import Path

from components.shared.artifacts import output_folder
from components.shared.errors import UserError
from components.shared.evaluation.champion import Champion, write_champion
from components.shared.params.schema import Params
from components.shared.registry.versions import find_champion
from components.shared.step import command_line
from components.shared.tracking.client import connect


def champion(out: Path, params: Params) -> Champion:
    """Write down who is champion, so that `evaluate` runs again when that changed, and only then.

    Writes `champion.json` into `out`; it holds no time and no run id, so that the same champion is the same file.
    This step has no MLflow run of its own. A registry that can't be asked is written down too: `evaluate` then
    refuses the model.

    Args:
        out: folder to write.
        params: with section `registry`.

    Raises:
        UserError: `out` can't be written.
    """
    name = params.registry.champion_model
    with output_folder(Path(out)) as folder:
        try:
            connect()
            found = find_champion(name)
        except UserError as error:
            found = Champion(model=name, unavailable=str(error))
        write_champion(folder, found)
    print(f"champion: {_in_words(found)}", flush=True)
    return found


def _in_words(found: Champion) -> str:
    if found.unavailable is not None:
        return f"could not be asked for: {found.unavailable}"
    return f"{found.model} has none" if found.version is None else f"{found.model} version {found.version}"


if __name__ == "__main__":
    command_line("champion", champion)
