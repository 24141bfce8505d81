"""Checks Kubernetes manifests against the typed models of the official client, more strictly than `kubectl` does.

`check(document)` takes one whole object (`apiVersion`, `kind`, …); `check_as(value, "V1Toleration")` a part of one,
such as the pod template inside a custom resource, whose own fields the client does not know.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

# the client types these as plain strings; the values are those of the API reference, v1.30
ENUMS: dict[tuple[str, str], set[str]] = {
    ("V1Container", "imagePullPolicy"): {"Always", "IfNotPresent", "Never"},
    ("V1ContainerPort", "protocol"): {"TCP", "UDP", "SCTP"},
    ("V1CronJobSpec", "concurrencyPolicy"): {"Allow", "Forbid", "Replace"},
    ("V1DeploymentStrategy", "type"): {"Recreate", "RollingUpdate"},
    ("V1LabelSelectorRequirement", "operator"): {"In", "NotIn", "Exists", "DoesNotExist"},
    ("V1NodeSelectorRequirement", "operator"): {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"},
    ("V1PersistentVolumeClaimSpec", "volumeMode"): {"Block", "Filesystem"},
    ("V1PodSpec", "dnsPolicy"): {"ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"},
    ("V1PodSpec", "restartPolicy"): {"Always", "OnFailure", "Never"},
    ("V1SeccompProfile", "type"): {"Localhost", "RuntimeDefault", "Unconfined"},
    ("V1ServicePort", "protocol"): {"TCP", "UDP", "SCTP"},
    ("V1ServiceSpec", "type"): {"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"},
    ("V1StatefulSetUpdateStrategy", "type"): {"OnDelete", "RollingUpdate"},
    ("V1Toleration", "effect"): {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    ("V1Toleration", "operator"): {"Equal", "Exists"},
}
ACCESS_MODES = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
POLICY_TYPES = {"Ingress", "Egress"}
# maps of resource → quantity, and single quantities, which the client types as strings
QUANTITIES = {
    ("V1EmptyDirVolumeSource", "sizeLimit"),
    ("V1LimitRangeItem", "default"),
    ("V1LimitRangeItem", "defaultRequest"),
    ("V1LimitRangeItem", "max"),
    ("V1LimitRangeItem", "min"),
    ("V1PersistentVolumeSpec", "capacity"),
    ("V1ResourceFieldSelector", "divisor"),
    ("V1ResourceQuotaSpec", "hard"),
    ("V1ResourceRequirements", "limits"),
    ("V1ResourceRequirements", "requests"),
    ("V1VolumeResourceRequirements", "limits"),
    ("V1VolumeResourceRequirements", "requests"),
}
NUMBER_OR_NAME = {"port", "targetPort", "maxSurge", "maxUnavailable", "minAvailable"}
DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_NAME = rf"{DNS_LABEL}(\.{DNS_LABEL})*"
QUALIFIED_NAME = rf"({DNS_NAME}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?"
LABEL_VALUE = r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?"


class ManifestError(ValueError):
    """A document that Kubernetes would not take; the message is `path: reason`."""


def check(document: Mapping[str, Any]) -> None:
    """Check one whole object.

    Args:
        document: with `apiVersion` and `kind` of a type that the client knows.

    Raises:
        ManifestError: an unknown kind or field, a missing one, a wrong type, name, quantity or choice, a selector
            that does not match its own template, or a mount of a volume that is not there.
    """
    if not isinstance(document, Mapping):
        raise ManifestError(f"document: a mapping is wanted, not {_kind(document)}")
    for field in ("apiVersion", "kind", "metadata"):
        if not document.get(field):
            raise ManifestError(f"{field}: is missing")
    model = _model_of(document["apiVersion"], document["kind"])
    path = str(document["kind"])
    check_as(document, model, path)
    metadata = document["metadata"]
    if not metadata.get("name") and not metadata.get("generateName"):
        raise ManifestError(f"{path}.metadata.name: is missing")
    _check_selector(document.get("spec") or {}, f"{path}.spec")
    _check_mounts(document, path)


def check_as(value: Any, type_name: str, path: str | None = None) -> None:
    """Check a value against a type of the client.

    Args:
        value: plain data, as YAML or JSON gives it.
        type_name: as the client writes it: "V1PodSpec", "list[V1Toleration]", "dict(str, str)", "int", …
        path: how the value is called in messages; the type's name where None.

    Raises:
        ManifestError: as `check` says.
    """
    path = path or type_name
    inner = re.fullmatch(r"list\[(.+)\]|dict\(str, (.+)\)", type_name)
    if inner and inner[1]:
        _wanted(isinstance(value, list), "a list", value, path)
        for index, item in enumerate(value):
            check_as(item, inner[1], f"{path}[{index}]")
    elif inner:
        _wanted(isinstance(value, Mapping), "a mapping", value, path)
        for key, item in value.items():
            _wanted(isinstance(key, str), "a string as key", key, path)
            check_as(item, inner[2], f"{path}.{key}")
    elif hasattr(client, type_name):
        _check_model(value, type_name, path)
    elif type_name == "datetime":
        _wanted(isinstance(value, str | datetime), "a time", value, path)
    elif type_name != "object":
        python = {"str": str, "int": int, "bool": bool, "float": (int, float)}[type_name]
        plain = isinstance(value, python) and (type_name == "bool" or not isinstance(value, bool))
        _wanted(plain, type_name, value, path)


def pod_specs(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each pod specification in a document, with its path."""
    for key, value in document.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            if isinstance(value.get("containers"), list):
                yield here, dict(value)
            yield from pod_specs(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from pod_specs(item, f"{here}[{index}]")


@functools.cache
def _model_of(api_version: str, kind: str) -> str:
    group, _, version = str(api_version).rpartition("/")
    group = group.removesuffix(".k8s.io")
    words = re.split(r"[.\-]", group) if group else ["core"]
    api = getattr(client, "".join(word.capitalize() for word in words) + version.capitalize() + "Api", None)
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", str(kind)).lower()
    for method in (f"create_namespaced_{snake}", f"create_{snake}"):
        found = re.search(r":param (\w+) body:", getattr(getattr(api, method, None), "__doc__", None) or "")
        if found:
            return found[1]
    raise ManifestError(f"kind: {api_version} {kind} is not known to the Kubernetes client")


@functools.cache
def _fields(type_name: str) -> tuple[dict[str, str], frozenset[str]]:
    """Field (as JSON has it) → type, and the required ones."""
    model = getattr(client, type_name)
    settings = client.Configuration()
    settings.client_side_validation = False
    blank = model(local_vars_configuration=settings)
    settings.client_side_validation = True
    required = set()
    for name, json_name in model.attribute_map.items():
        try:
            setattr(blank, name, None)
        except ValueError:
            required.add(json_name)
    types = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
    return types, frozenset(required)


def _check_model(value: Any, type_name: str, path: str) -> None:
    _wanted(isinstance(value, Mapping), f"a mapping ({type_name})", value, path)
    types, required = _fields(type_name)
    for field in value:
        if field not in types:
            raise ManifestError(f"{path}.{field}: {type_name} has no such field; it has {', '.join(sorted(types))}")
    for field in sorted(required):
        if value.get(field) is None:
            raise ManifestError(f"{path}.{field}: is missing")
    for field, content in value.items():
        here = f"{path}.{field}"
        if content is None:
            raise ManifestError(f"{here}: has no value; leave the field out")
        if (type_name, field) in QUANTITIES:
            _check_quantities(content, here)
        else:
            check_as(content, types[field], here)
        _check_choice(content, type_name, field, here)
        if types[field] == "object" and field in NUMBER_OR_NAME:
            _wanted(
                isinstance(content, str | int) and not isinstance(content, bool), "a number or name", content, here
            )
    if type_name == "V1ObjectMeta":
        _check_metadata(value, path)
    if type_name == "V1Secret":
        _check_secret(value, path)
    if type_name == "V1EnvVar" and "value" in value and "valueFrom" in value:
        raise ManifestError(f"{path}: value and valueFrom exclude each other")


def _check_choice(content: Any, type_name: str, field: str, path: str) -> None:
    allowed = ENUMS.get((type_name, field))
    if field == "accessModes":
        allowed = ACCESS_MODES
    if (type_name, field) == ("V1NetworkPolicySpec", "policyTypes"):
        allowed = POLICY_TYPES
    for item in content if isinstance(content, list) else [content]:
        if allowed and item not in allowed:
            raise ManifestError(f"{path}: {item!r} is none of {', '.join(sorted(allowed))}")


def _check_quantities(content: Any, path: str) -> None:
    for key, quantity in content.items() if isinstance(content, Mapping) else [("", content)]:
        here = f"{path}.{key}" if key else path
        numeric = isinstance(quantity, str | int | float) and not isinstance(quantity, bool)
        _wanted(numeric, "a quantity", quantity, here)
        try:
            parse_quantity(str(quantity))
        except ValueError as error:
            raise ManifestError(f"{here}: {quantity!r} is no quantity ({error})") from None


def _check_metadata(metadata: Mapping[str, Any], path: str) -> None:
    for field in ("name", "namespace"):
        name = metadata.get(field, "x")
        if not re.fullmatch(DNS_NAME, name) or len(name) > 253:
            raise ManifestError(f"{path}.{field}: {name!r} is no DNS name (small letters, digits, '-', '.')")
    for field in ("labels", "annotations"):
        for key, value in metadata.get(field, {}).items():
            if not re.fullmatch(QUALIFIED_NAME, key):
                raise ManifestError(f"{path}.{field}: {key!r} is no qualified name")
            if field == "labels" and not re.fullmatch(LABEL_VALUE, value):
                raise ManifestError(f"{path}.labels.{key}: {value!r} is no label value (63 of A-Za-z0-9-_.)")


def _check_secret(secret: Mapping[str, Any], path: str) -> None:
    for key, value in secret.get("data", {}).items():
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            raise ManifestError(f"{path}.data.{key}: is not base64; plain text belongs into stringData") from None


def _check_mounts(document: Mapping[str, Any], path: str) -> None:
    claims = (document.get("spec") or {}).get("volumeClaimTemplates", [])
    for here, spec in pod_specs(document, path):
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in claims}
        containers = [*spec["containers"], *spec.get("initContainers", [])]
        names = [container["name"] for container in containers]
        for container in containers:
            name = container["name"]
            if not re.fullmatch(DNS_LABEL, name) or names.count(name) > 1:
                raise ManifestError(f"{here}: container {name!r} is no DNS label, or is there twice")
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    raise ManifestError(f"{here}: {name} mounts {mount['name']!r}, which is no volume of the pod")


def _check_selector(spec: Mapping[str, Any], path: str) -> None:
    selector, template = spec.get("selector"), spec.get("template")
    if not isinstance(selector, Mapping) or not isinstance(template, Mapping):
        return
    labels = template.get("metadata", {}).get("labels", {})
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            raise ManifestError(f"{path}.selector: {key}={value} does not match the template's labels {labels}")


def _wanted(holds: bool, what: str, value: Any, path: str) -> None:
    if not holds:
        raise ManifestError(f"{path}: {what} is wanted, not {_kind(value)} {value!r:.60}")


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
