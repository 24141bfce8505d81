"""Composing `params.yaml` from the options in `conf/`, as `dvc exp run -S` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from components.shared.errors import UserError
from components.shared.params import Params, validate_params

CONF = Path(__file__).resolve().parents[2] / "conf"


def compose(overrides: Sequence[str] = (), conf: Path = CONF) -> tuple[Params, dict[str, Any]]:
    """Compose the options and check the result.

    Args:
        overrides: such as `data=cifar10` (an option of a group) or `runtime.epochs=200` (one value).
        conf: the folder of configuration groups.

    Returns:
        The checked parameters, and the plain values to write to `params.yaml`.

    Raises:
        UserError: an override names no group, option or parameter, or its value is not allowed.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(config_dir=str(conf.resolve()), version_base=None):
            values: Any = OmegaConf.to_container(hydra_compose("config", overrides=list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{' '.join(overrides)}: {_short(str(error))}") from None
    return validate_params(values, "conf"), values


def write_params(values: dict[str, Any], path: Path) -> None:
    """Write composed values as `params.yaml`."""
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def _short(message: str) -> str:
    return " ".join(message.split())[:300]
