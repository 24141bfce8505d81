"""The manifest of a pretraining on several nodes is one that Kubeflow Trainer and Kubernetes accept."""

from __future__ import annotations

import copy
import re

import pytest
import yaml

from components.shared.training import distributed as processes
from tests.helpers.kubernetes_types import ManifestError, check_as
from tests.helpers.repository import ROOT

MANIFEST = yaml.safe_load((ROOT / "docs" / "trainjob.yaml").read_text())
# Field → type, required ones with a `!`; transcribed from kubeflow/trainer v2.2, pkg/apis/trainer/v1alpha1/
# trainjob_types.go. Types with a V1 are the Kubernetes client's.
TYPES = {
    "TrainJob": {"apiVersion!": "str", "kind!": "str", "metadata!": "V1ObjectMeta", "spec!": "TrainJobSpec"},
    "TrainJobSpec": {
        "runtimeRef!": "RuntimeRef", "initializer": "object", "trainer": "Trainer",
        "runtimePatches": "list[RuntimePatch]", "suspend": "bool", "activeDeadlineSeconds": "int",
        "managedBy": "str",
    },
    "RuntimeRef": {"name!": "str", "apiGroup": "str", "kind": "str"},
    "Trainer": {
        "image": "str", "command": "list[str]", "args": "list[str]", "env": "list[V1EnvVar]", "numNodes": "int",
        "resourcesPerNode": "V1ResourceRequirements", "numProcPerNode": "int",
    },
    "RuntimePatch": {"manager!": "str", "time": "datetime", "trainingRuntimeSpec": "TrainingRuntimeSpecPatch"},
    "TrainingRuntimeSpecPatch": {"template": "JobSetTemplatePatch"},
    "JobSetTemplatePatch": {"metadata": "V1ObjectMeta", "spec": "JobSetSpecPatch"},
    "JobSetSpecPatch": {"replicatedJobs": "list[ReplicatedJobPatch]"},
    "ReplicatedJobPatch": {"name!": "str", "template": "JobTemplatePatch"},
    "JobTemplatePatch": {"metadata": "V1ObjectMeta", "spec": "JobSpecPatch"},
    "JobSpecPatch": {"template": "PodTemplatePatch"},
    "PodTemplatePatch": {"metadata": "V1ObjectMeta", "spec": "PodSpecPatch"},
    "PodSpecPatch": {
        "serviceAccountName": "str", "volumes": "list[V1Volume]", "initContainers": "list[ContainerPatch]",
        "containers": "list[ContainerPatch]", "imagePullSecrets": "list[V1LocalObjectReference]",
        "securityContext": "V1PodSecurityContext", "nodeSelector": "dict(str, str)", "affinity": "V1Affinity",
        "tolerations": "list[V1Toleration]", "schedulingGates": "list[V1PodSchedulingGate]",
    },
    "ContainerPatch": {
        "name!": "str", "env": "list[V1EnvVar]", "volumeMounts": "list[V1VolumeMount]",
        "securityContext": "V1SecurityContext",
    },
}  # fmt: skip
# set by the runtime jax-distributed: kubeflow/trainer v2.2, pkg/runtime/framework/plugins/jax/jax.go
GIVEN = {
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "JAX_COORDINATOR_ADDRESS",
    "JAX_COORDINATOR_PORT",
    "JAX_DISTRIBUTED_BACKEND",
}


def check(value, kind="TrainJob", path="TrainJob"):
    """Refuse what the custom resource's definition, or a type of Kubernetes in it, would not take."""
    if kind.startswith("list[") and kind[5:-1] in TYPES:
        for index, item in enumerate(value):
            check(item, kind[5:-1], f"{path}[{index}]")
        return
    if kind not in TYPES:
        check_as(value, kind, path)
        return
    fields = {name.rstrip("!"): inner for name, inner in TYPES[kind].items()}
    for name in value:
        if name not in fields:
            raise ManifestError(f"{path}.{name}: {kind} has no such field")
    for name in TYPES[kind]:
        if name.endswith("!") and not value.get(name[:-1]):
            raise ManifestError(f"{path}.{name[:-1]}: is missing")
    for name, content in value.items():
        check(content, fields[name], f"{path}.{name}")
    if kind == "TrainJob" and not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", value["metadata"]["name"]):
        raise ManifestError(f"{path}.metadata.name: must match RFC 1035")
    if kind == "ContainerPatch" and value["name"] == "node" and "env" in value:
        raise ManifestError(f"{path}.env: the trainer's own container takes it from spec.trainer only")
    if kind == "PodSpecPatch":
        volumes = {volume["name"] for volume in value.get("volumes", [])}
        for container in (*value.get("containers", []), *value.get("initContainers", [])):
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    raise ManifestError(f"{path}: no volume {mount['name']}")


def pod(manifest):
    """The patch of the pods."""
    (patch,) = manifest["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == "node"
    return job["template"]["spec"]["template"]["spec"]


def test_the_manifest_is_a_trainjob():
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    check(MANIFEST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["spec"]["trainer"].update(numNodes="2"), "numNodes: int is wanted"),
        (lambda m: m["spec"]["trainer"].update(nodes=2), "Trainer has no such field"),
        (lambda m: m["spec"].pop("runtimeRef"), "runtimeRef: is missing"),
        (lambda m: m["metadata"].update(name="2-nodes"), "RFC 1035"),
        (lambda m: m["spec"]["trainer"]["env"][0].update(value=8), "env[0].value: str is wanted"),
        (lambda m: m["spec"]["trainer"]["resourcesPerNode"]["limits"].update(memory="96GB"), "limits.memory"),
        (lambda m: pod(m)["tolerations"][0].update(operator="Any"), "operator"),
        (lambda m: pod(m)["volumes"].pop(0), "no volume work"),
        (lambda m: pod(m)["containers"][0].update(env=[]), "from spec.trainer only"),
    ],
)
def test_what_the_cluster_would_refuse_is_found(change, message):
    manifest = copy.deepcopy(MANIFEST)
    change(manifest)
    with pytest.raises(ManifestError, match=re.escape(message)):
        check(manifest)


def test_each_node_runs_the_step_on_jax_in_the_shared_folder():
    trainer = MANIFEST["spec"]["trainer"]
    folder, module = re.fullmatch(r"cd (\S+) && exec python -m (\S+)", trainer["command"][2]).groups()
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()
    (container,) = pod(MANIFEST)["containers"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {volume["name"] for volume in pod(MANIFEST)["volumes"] if "persistentVolumeClaim" in volume}
    assert mounted[folder] in claims
    env = {entry["name"]: entry.get("value") for entry in trainer["env"]}
    assert env["KERAS_BACKEND"] == "jax"
    # the places of the processes come from the runtime
    assert {processes.COUNT, processes.RANK, processes.ADDRESS} <= GIVEN
    assert not GIVEN & set(env)
    limits = trainer["resourcesPerNode"]["limits"]
    assert trainer["numNodes"] > 1
    assert int(limits["nvidia.com/gpu"]) > 1
