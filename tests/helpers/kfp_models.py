"""JSON checked against the models of the published client, as the server's own parser would check it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from kfp_server_api import models

INTEGERS_AS_TEXT = ("max_concurrency", "interval_second", "execution_id", "long_value")
PLAIN = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}


class WrongFieldError(ValueError):
    """A field that the API does not know, or a value that it does not take."""


def check(value: Any, kind: str, where: str = "") -> Any:
    """The value, if it is of a kind of the API, such as "V2beta1Run", "str" or "list[V2beta1Run]"."""
    if kind.startswith("list["):
        _is(value, (list,), where)
        return [check(item, kind[5:-1], f"{where}[]") for item in value]
    if kind.startswith("dict("):
        _is(value, (dict,), where)
        return {key: check(item, kind[5:-1].split(", ", 1)[1], f"{where}.{key}") for key, item in value.items()}
    if kind == "object":
        return value
    if kind == "datetime":
        _is(value, (str,), where)
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value):
            raise WrongFieldError(f"{where}: {value!r} is no RFC 3339 time")
        datetime.fromisoformat(value)
        return value
    if kind in PLAIN:
        _is(value, (int, str) if where.rsplit(".", 1)[-1] in INTEGERS_AS_TEXT else PLAIN[kind], where)
        return value
    return _model(value, getattr(models, kind), where or kind)


def _model(value: Any, model: Any, where: str) -> Any:
    if not model.openapi_types:
        if value not in model.allowable_values:
            raise WrongFieldError(f"{where}: {value!r} is none of {', '.join(model.allowable_values)}")
        return value
    _is(value, (dict,), where)
    kinds = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for key in value:
        # the details of an error carry fields of their own beside their type
        if key not in kinds and model.__name__ != "ProtobufAny":
            raise WrongFieldError(f'{where}: unknown field "{key}"')
    return {key: check(item, kinds.get(key, "object"), f"{where}.{key}") for key, item in value.items()}


def _is(value: Any, kinds: tuple[type, ...], where: str) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise WrongFieldError(f"{where}: {value!r} is no {' or '.join(kind.__name__ for kind in kinds)}")
