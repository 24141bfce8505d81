"""Telling a user what is wrong with a parameter: its name, its value, what is allowed, and what was meant."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

Schema = Mapping[str, Any]


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem that pydantic found, in one line.

    Args:
        error: raised by validating plain values against `model`.
        model: the pydantic model of all parameters.

    Returns:
        Such as `method.temperature = 0: must be a number > 0`.
    """
    problem = error.errors()[0]
    root = model.model_json_schema()
    names, schema = _follow([str(part) for part in problem["loc"]], root)
    kind, field, value = problem["type"], ".".join(names), problem["input"]
    if kind == "missing":
        return f"{field}: missing; see conf/ for its default"
    if kind == "extra_forbidden":
        siblings = [".".join([*names[:-1], key]) for key in _properties(schema, root)]
        return f"{field}: no such parameter{did_you_mean(field, siblings)}; see conf/ for the names"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        key = str(problem["ctx"]["discriminator"]).strip("'")
        tags = list(schema["discriminator"]["mapping"])
        if kind == "union_tag_not_found" or not isinstance(value, dict):
            return f"{field}.{key}: missing; must be one of {', '.join(tags)}"
        tag = value[key]
        return f"{field}.{key} = {_shown(tag)}: must be one of {', '.join(tags)}{did_you_mean(tag, tags)}"
    if kind == "value_error":  # a check of our own, whose message says all
        # one that compares groups has no field of its own, and names both itself
        return f"{field}: {problem['ctx']['error']}" if field else str(problem["ctx"]["error"])
    options = [str(option) for option in schema.get("enum", [])]
    return f"{field} = {_shown(value)}: must be {_allowed(schema, root)}{did_you_mean(value, options)}"


def parameter_names(model: type[BaseModel]) -> list[str]:
    """Dotted names of all parameters and of the groups they are in, such as `method` and `method.temperature`."""
    root = model.model_json_schema()
    names: dict[str, None] = {}

    def collect(schema: Schema, prefix: str) -> None:
        for key, child in _properties(schema, root).items():
            names[prefix + key] = None
            collect(child, f"{prefix}{key}.")

    collect(root, "")
    return list(names)


def did_you_mean(wrong: Any, names: Iterable[str]) -> str:
    """` (did you mean x?)` with the closest of `names`, or nothing where none is close."""
    names = list(names)
    text = str(wrong)
    close = [name for name in names if name.rsplit(".", 1)[-1] == text][:3]
    close = close or difflib.get_close_matches(text, names, n=1, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _follow(parts: list[str], root: Schema) -> tuple[list[str], Schema]:
    """Walk down the schema; drops the parts that name a member of a union, which no user knows."""
    names: list[str] = []
    schema = keys = root
    for part in parts:
        schema = _resolve(schema, root)
        members = schema.get("discriminator", {}).get("mapping", {})
        child = _properties(schema, root).get(part)
        if part in members:
            schema = {"$ref": members[part]}
        elif child is not None:
            names.append(part)
            schema = child
        elif part == "[key]":  # of a mapping: the name itself is not allowed
            schema = keys
        elif "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
            names.append(part)
            keys = schema.get("propertyNames", {"type": "string"})
            schema = schema["additionalProperties"]
        elif part.isdigit():
            names.append(part)
            items = schema.get("prefixItems", [])
            schema = items[int(part)] if int(part) < len(items) else schema.get("items", {})
        elif _properties(schema, root) or not names:
            names.append(part)
    return names, _resolve(schema, root)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Follow a reference, and `x or null` to x."""
    while True:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        elif len(real := _members(schema)) == 1:
            nullable = len(real) < len(schema["anyOf"])
            inner = _resolve(real[0], root)
            return {**inner, "nullable": True} if nullable else inner
        else:
            return schema


def _members(schema: Schema) -> list[Schema]:
    return [member for member in schema.get("anyOf", []) if member.get("type") != "null"]


def _properties(schema: Schema, root: Schema) -> dict[str, Schema]:
    """Names and schemas of the parameters of a group; of all its kinds where there are several."""
    schema = _resolve(schema, root)
    found = dict(schema.get("properties", {}))
    for member in (*schema.get("oneOf", []), *_members(schema)):
        found.update({key: value for key, value in _properties(member, root).items() if key not in found})
    return found


def _allowed(schema: Schema, root: Schema) -> str:
    """What a value may be, in words."""
    schema = _resolve(schema, root)
    words = _kind(schema, root)
    return f"{words} or null" if schema.get("nullable") else words


def _kind(schema: Schema, root: Schema) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _bounds(schema)
    if kind == "boolean":
        return "true or false"
    if kind == "string":
        return f"text matching {schema['pattern']}" if "pattern" in schema else "text, not empty"
    if kind == "array":
        items = schema.get("prefixItems")
        if items:
            return f"a list of {len(items)}, each {_allowed(items[0], root)}"
        several = "a list, not empty" if schema.get("minItems") else "a list"
        return f"{several}, each {_allowed(schema.get('items', {}), root)}"
    if members := _members(schema):
        return " or ".join(_allowed(member, root) for member in members)
    return "a group of parameters"


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    parts = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return f" {' and '.join(parts)}" if parts else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"
