"""Holds Kubernetes manifests against the typed models of the official client, more strictly than `kubectl` does.

The package kubernetes-validate (1.37.0, Apache licence, kept up to date) was tried in its place: 108 MB of JSON
schemas in 17,000 files, of which a few are read. It finds unknown, missing and wrongly typed fields as well.
But published schemas type as plain text what Kubernetes refuses, so a memory of 4Gb, an imagePullPolicy
Sometimes and a restartPolicy Alway pass; a selector that does not match and a mount without a volume are no
matter of schemas; and it knows no TrainJob, whose pods are checked here by the client's types too. It would
spare `_model_of` and `_fields`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

# what the client types as plain strings: the values of the API reference, v1.30, by the field's name
CHOICES = {
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "concurrencyPolicy": {"Allow", "Forbid", "Replace"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "operator": {"Equal", "Exists", "In", "NotIn", "DoesNotExist", "Gt", "Lt"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
}
QUANTITIES = {"limits", "requests", "sizeLimit", "capacity", "hard", "divisor"}
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": (str, datetime), "object": object}

# type → its fields' types; a required field's name ends with a `!`
Types = Mapping[str, Mapping[str, str]]


class ManifestError(ValueError):
    """A document that Kubernetes would not take; the message is `path: reason`."""


def check(document: Mapping[str, Any]) -> None:
    """Check one whole object with `apiVersion` and `kind`.

    Raises:
        ManifestError: an unknown kind or field, a missing one, a wrong type, quantity or choice, a selector that
            does not match its own template, or a mount of a volume that is not there.
    """
    check_as(document, _model_of(document["apiVersion"], document["kind"]), document["kind"])
    spec = document.get("spec") or {}
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if "template" in spec and not spec.get("selector", {}).get("matchLabels", {}).items() <= labels.items():
        raise ManifestError(f"{document['kind']}.spec.selector: does not match the template's labels {labels}")
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
    for path, pod in pod_specs(document):
        check_mounts(pod, path, claims)


def check_as(value: Any, type_name: str, path: str, types: Types | None = None) -> None:
    """Check plain data against a type.

    Args:
        value: as YAML or JSON gives it.
        type_name: as the client writes it: "V1PodSpec", "list[V1Toleration]", "dict(str, str)", "int", …
        path: how the value is called in messages.
        types: types of custom resources, which the client does not know.
    """
    inner = re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", type_name)
    if inner:
        _require(isinstance(value, list if inner[1] else Mapping), type_name, value, path)
        items = enumerate(value) if inner[1] else value.items()
        for key, item in items:
            check_as(item, inner[1] or inner[2], f"{path}[{key}]", types)
    elif type_name in PLAIN:
        fits = isinstance(value, PLAIN[type_name]) and (type_name == "bool" or not isinstance(value, bool))
        _require(fits, type_name, value, path)
    else:
        _check_fields(value, type_name, path, types or {})


def check_mounts(pod: Mapping[str, Any], path: str, claims: set[str] = frozenset()) -> None:
    """Check that every mount of a pod's containers is of a volume that the pod, or its set, has."""
    volumes = claims | {volume["name"] for volume in pod.get("volumes", [])}
    for container in (*pod.get("containers", []), *pod.get("initContainers", [])):
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                raise ManifestError(f"{path}: {container['name']} mounts {mount['name']!r}, no volume of the pod")


def pod_specs(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod specification in a document, with its path."""
    for key, value in document.items():
        here = f"{path}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            if isinstance(value.get("containers"), list):
                yield here, dict(value)
            yield from pod_specs(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from pod_specs(item, f"{here}[{index}]")


def _check_fields(value: Any, type_name: str, path: str, types: Types) -> None:
    _require(isinstance(value, Mapping), type_name, value, path)
    declared = types.get(type_name) or _fields(type_name)
    fields = {name.rstrip("!"): inner for name, inner in declared.items()}
    for name in declared:
        if name.endswith("!") and value.get(name[:-1]) is None:
            raise ManifestError(f"{path}.{name[:-1]}: is missing")
    for name, content in value.items():
        here = f"{path}.{name}"
        if name not in fields:
            raise ManifestError(f"{here}: {type_name} has no such field")
        if name in QUANTITIES:
            _check_quantities(content, here)
            continue
        check_as(content, fields[name], here, types)
        for item in content if isinstance(content, list) else [content]:
            if name in CHOICES and item not in CHOICES[name]:
                raise ManifestError(f"{here}: {item!r} is none of {', '.join(sorted(CHOICES[name]))}")


def _check_quantities(content: Any, path: str) -> None:
    for quantity in content.values() if isinstance(content, Mapping) else [content]:
        try:
            parse_quantity(str(quantity))
        except ValueError as error:
            raise ManifestError(f"{path}: {quantity!r} is no quantity ({error})") from None


@functools.cache
def _model_of(api_version: str, kind: str) -> str:
    """The client's type of a kind: that of the body of the call that creates one."""
    group, _, version = api_version.rpartition("/")
    words = re.split(r"[.\-]", group.removesuffix(".k8s.io")) if group else ["core"]
    api = getattr(client, "".join(word.capitalize() for word in words) + version.capitalize() + "Api", None)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
    for method in (f"create_namespaced_{snake}", f"create_{snake}"):
        if found := re.search(r":param (\w+) body:", getattr(getattr(api, method, None), "__doc__", None) or ""):
            return found[1]
    raise ManifestError(f"kind: {api_version} {kind} is not known to the Kubernetes client")


@functools.cache
def _fields(type_name: str) -> dict[str, str]:
    """The fields of one of the client's types, as JSON names them; it refuses None for a required one."""
    model = getattr(client, type_name)
    settings = client.Configuration()
    settings.client_side_validation = False
    blank = model(local_vars_configuration=settings)
    settings.client_side_validation = True
    found = {}
    for name, json_name in model.attribute_map.items():
        try:
            setattr(blank, name, None)
        except ValueError:
            json_name += "!"
        found[json_name] = model.openapi_types[name]
    return found


def _require(holds: bool, what: str, value: Any, path: str) -> None:
    if not holds:
        raise ManifestError(f"{path}: {what} is wanted, not {type(value).__name__} {value!r:.60}")
