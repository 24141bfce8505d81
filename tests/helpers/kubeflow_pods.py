"""The pods that Kubeflow would start for a compiled pipeline, as its driver makes them of the two specs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Spec = dict[str, Any]


def read(path: Path) -> tuple[Spec, Spec]:
    """The pipeline spec and the platform spec of a compiled file."""
    pipeline, platform = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return pipeline, platform


def steps(pipeline: Spec) -> dict[str, Spec]:
    """Name → task of every task that runs a container, however deep it is nested."""
    found: dict[str, Spec] = {}
    dags = [pipeline["root"], *pipeline["components"].values()]
    for dag in dags:
        for name, task in dag.get("dag", {}).get("tasks", {}).items():
            if "executorLabel" in pipeline["components"][task["componentRef"]["name"]]:
                found[name] = task
    return found


def containers(pipeline: Spec) -> dict[str, Spec]:
    """Step → its container."""
    return {name.removeprefix("exec-"): each["container"] for name, each in _executors(pipeline).items()}


def settings(platform: Spec) -> dict[str, Spec]:
    """Step → its settings for Kubernetes."""
    return {
        name.removeprefix("exec-"): each for name, each in _executors(platform["platforms"]["kubernetes"]).items()
    }


def pods(pipeline: Spec, platform: Spec) -> Iterator[tuple[str, Spec]]:
    """Each step's pod, with everything that the two specs ask for."""
    for step, container in containers(pipeline).items():
        yield step, pod(step, container, settings(platform)[step])


def pod(step: str, container: Spec, wanted: Spec) -> Spec:
    """One pod; raises KeyError for a setting that is not known here, so that none goes unchecked."""
    wanted = dict(wanted)
    volumes, mounts = _volumes(wanted)
    spec = {
        "containers": [
            {
                "name": "main",
                "image": container["image"],
                "imagePullPolicy": wanted.pop("imagePullPolicy"),
                "command": container["command"],
                "args": container["args"],
                "env": [*container.get("env", []), *_env(wanted)],
                "resources": _resources(container["resources"]),
                "securityContext": wanted.pop("securityContext", {}),
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
        "restartPolicy": "Never",
        "nodeSelector": wanted.pop("nodeSelector", {}).get("labels", {}),
        "tolerations": [_toleration(each) for each in wanted.pop("tolerations", [])],
        "imagePullSecrets": [{"name": each["secretName"]} for each in wanted.pop("imagePullSecret", [])],
        "activeDeadlineSeconds": int(wanted.pop("activeDeadlineSeconds", 1)),
    }
    metadata = {"name": step, **wanted.pop("podMetadata")}
    if wanted:
        raise KeyError(f"{step}: {', '.join(wanted)}")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def summary(pipeline: Spec, platform: Spec) -> Spec:
    """What a compiled pipeline says, without code, descriptions and repetitions."""
    made = {step: set(_flat(pod["spec"])) for step, pod in pods(pipeline, platform)}
    common = set.intersection(*made.values())
    return {
        "parameters": pipeline["root"]["inputDefinitions"]["parameters"],
        "run": platform["platforms"]["kubernetes"]["pipelineConfig"],
        "tasks": {name: _task(task) for name, task in sorted(steps(pipeline).items())},
        "outputs": {step: _outputs(pipeline["components"][f"comp-{step}"]) for step in sorted(made)},
        "each pod": sorted(common),
        "pods": {step: sorted(lines - common) for step, lines in sorted(made.items())},
    }


def _task(task: Spec) -> Spec:
    inputs = task.get("inputs", {})
    found = {
        "title": task["taskInfo"]["name"],
        "after": task.get("dependentTasks", []),
        "inputs": {
            name: " of ".join(line.rpartition(" = ")[2] for line in _flat(source))
            for kind in ("artifacts", "parameters")
            for name, source in inputs.get(kind, {}).items()
        },
        "cached": task["cachingOptions"].get("enableCache", False),
    }
    return {**found, **{key: task[key] for key in ("retryPolicy", "triggerPolicy") if key in task}}


def _outputs(component: Spec) -> dict[str, str]:
    found = component.get("outputDefinitions", {})
    kinds = {name: each["artifactType"]["schemaTitle"] for name, each in found.get("artifacts", {}).items()}
    return kinds | {name: each["parameterType"] for name, each in found.get("parameters", {}).items()}


def _flat(value: Any, prefix: str = "") -> Iterator[str]:
    """One line per value in nested mappings and lists, with its path; code is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            named = key == "name" and prefix.endswith(f"[{inner}]") and len(value) > 1  # is in the path already
            if key not in ("command", "args") and not named:
                yield from _flat(inner, f"{prefix}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            key = item.get("name", item.get("mountPath", index)) if isinstance(item, Mapping) else index
            yield from _flat(item, f"{prefix}[{key}]")
    else:
        yield f"{prefix} = {value}"


def _executors(spec: Mapping[str, Any]) -> dict[str, Spec]:
    found: dict[str, Spec] = spec["deploymentSpec"]["executors"]
    return found


def _resources(resources: Spec) -> Spec:
    limits = {"cpu": resources.get("resourceCpuLimit"), "memory": resources.get("resourceMemoryLimit")}
    if gpu := resources.get("accelerator"):
        limits[gpu["resourceType"]] = int(gpu["resourceCount"])
    requests = {"cpu": resources["resourceCpuRequest"], "memory": resources["resourceMemoryRequest"]}
    return {"requests": requests, "limits": {name: value for name, value in limits.items() if value is not None}}


def _toleration(toleration: Spec) -> Spec:
    if "tolerationSeconds" in toleration:  # the specs write whole numbers of 64 bits as text
        return {**toleration, "tolerationSeconds": int(toleration["tolerationSeconds"])}
    return toleration


def _volumes(wanted: Spec) -> tuple[list[Spec], list[Spec]]:
    volumes, mounts = [], []
    for each in wanted.pop("pvcMount", []):
        claim = each["constant"]
        volumes.append({"name": claim, "persistentVolumeClaim": {"claimName": claim}})
        mount = {"name": claim, "mountPath": each["mountPath"], "subPath": each.get("subPath")}
        mounts.append({name: value for name, value in mount.items() if value})
    for each in wanted.pop("emptyDirMounts", []):
        source = {"medium": each["medium"], "sizeLimit": each["sizeLimit"]}
        volumes.append({"name": each["volumeName"], "emptyDir": source})
        mounts.append({"name": each["volumeName"], "mountPath": each["mountPath"]})
    for setting, kind, named in (
        ("secretAsVolume", "secret", "secretName"),
        ("configMapAsVolume", "configMap", "name"),
    ):
        for each in wanted.pop(setting, []):
            name = each[f"{kind}Name"]
            volumes.append({"name": name, kind: {named: name, "optional": each.get("optional", False)}})
            mounts.append({"name": name, "mountPath": each["mountPath"], "readOnly": True})
    return volumes, mounts


def _env(wanted: Spec) -> list[Spec]:
    env = []
    for each in wanted.pop("fieldPathAsEnv", []):
        env.append({"name": each["name"], "valueFrom": {"fieldRef": {"fieldPath": each["fieldPath"]}}})
    sources = (("secret", "secretKeyRef"), ("configMap", "configMapKeyRef"))
    for kind, reference in sources:
        for each in wanted.pop(f"{kind}AsEnv", []):
            for pair in each["keyToEnv"]:
                source = {"name": each[f"{kind}Name"], "key": pair[f"{kind}Key"], "optional": each["optional"]}
                env.append({"name": pair["envVar"], "valueFrom": {reference: source}})
    return env
