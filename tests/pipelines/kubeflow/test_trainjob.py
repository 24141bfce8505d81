"""The manifest of a pretraining on several nodes is one that Kubeflow Trainer and Kubernetes accept."""

from __future__ import annotations

import re

import yaml

from components.shared.training import distributed as processes
from tests.helpers.kubernetes_types import check_as, check_mounts
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


def pod(manifest):
    """The patch of the pods."""
    (patch,) = manifest["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert job["name"] == "node"
    return job["template"]["spec"]["template"]["spec"]


def test_the_manifest_is_a_trainjob():
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    check_as(MANIFEST, "TrainJob", "TrainJob", TYPES)
    check_mounts(pod(MANIFEST), "pods")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", MANIFEST["metadata"]["name"])
    # the trainer's own container takes its environment from spec.trainer only
    assert [one["name"] for one in pod(MANIFEST)["containers"] if "env" not in one] == ["node"]


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
