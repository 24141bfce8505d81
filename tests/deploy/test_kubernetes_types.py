"""The checker of manifests takes what Kubernetes takes, and says path and reason of what it would refuse."""

from __future__ import annotations

import copy

import pytest
import yaml

from tests.helpers.kubernetes_types import ManifestError, check, check_as, pod_specs

DEPLOYMENT = yaml.safe_load("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app.kubernetes.io/name: web}}
spec:
  replicas: 2
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0, maxSurge: 25%}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: web
          image: example.org/web:1
          ports: [{name: http, containerPort: 8080}]
          env: [{name: A, value: "1"}]
          resources: {requests: {cpu: 250m, memory: 1Gi}, limits: {cpu: 2, nvidia.com/gpu: 1}}
          readinessProbe: {httpGet: {path: /health, port: http}}
          volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {sizeLimit: 1Gi}}]
""")
CONTAINER = ("spec", "template", "spec", "containers", 0)


def with_change(path, value):
    document = copy.deepcopy(DEPLOYMENT)
    place = document
    for part in path[:-1]:
        place = place[part]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def test_what_kubernetes_takes_is_taken():
    assert check(DEPLOYMENT) is None
    assert [path for path, _ in pod_specs(DEPLOYMENT)] == ["spec.template.spec"]
    check(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "reader"},
            "rules": [{"verbs": ["get"], "resources": ["pods"], "apiGroups": [""]}],
        }
    )
    check({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "x"}})
    check_as([{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], "list[V1Toleration]")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("kind",), "Deploiment", "apps/v1 Deploiment is not known"),
        (("apiVersion",), "batch/v1", "batch/v1 Deployment is not known"),
        (("apiVersion",), ..., "apiVersion: is missing"),
        (("metadata", "name"), ..., "Deployment.metadata.name: is missing"),
        (("metadata", "name"), "Web_1", "Deployment.metadata.name: 'Web_1' is no DNS name"),
        (("metadata", "labels", "app.kubernetes.io/name"), "a b", "'a b' is no label value"),
        (("spec", "replica"), 1, r"Deployment.spec.replica: V1DeploymentSpec has no such field; it has .*replicas"),
        (("spec", "replicas"), "2", "Deployment.spec.replicas: int is wanted, not str '2'"),
        (("spec", "replicas"), True, "Deployment.spec.replicas: int is wanted, not bool"),
        (("spec", "selector"), ..., "Deployment.spec.selector: is missing"),
        (("spec", "selector", "matchLabels", "app"), "api", "app=api does not match the template's labels"),
        (("spec", "strategy", "type"), "Rolling", "'Rolling' is none of Recreate, RollingUpdate"),
        (("spec", "strategy", "rollingUpdate", "maxSurge"), 0.5, "maxSurge: a number or name is wanted"),
        ((*CONTAINER, "name"), ..., r"spec.template.spec.containers\[0\].name: is missing"),
        ((*CONTAINER, "name"), "Web", "container 'Web' is no DNS label"),
        ((*CONTAINER, "env", 0, "value"), 1, r"containers\[0\].env\[0\].value: str is wanted, not int 1"),
        ((*CONTAINER, "env", 0, "valueFrom"), {"fieldRef": {"fieldPath": "x"}}, "exclude each other"),
        ((*CONTAINER, "resources", "limits", "cpu"), "2 cores", "resources.limits.cpu: '2 cores' is no quantity"),
        ((*CONTAINER, "volumeMounts", 0, "name"), "temp", "web mounts 'temp', which is no volume of the pod"),
        ((*CONTAINER, "image"), None, r"containers\[0\].image: has no value"),
        ((*CONTAINER, "ports"), {"containerPort": 1}, r"containers\[0\].ports: a list is wanted, not dict"),
    ],
)
def test_what_kubernetes_refuses_is_told_with_path_and_reason(path, value, message):
    with pytest.raises(ManifestError, match=message):
        check(with_change(path, value))


def test_secret_data_must_be_base64():
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": "not base64!"}}
    with pytest.raises(ManifestError, match=r"Secret.data.key: is not base64; plain text belongs into stringData"):
        check(secret)


def test_a_part_is_named_by_the_callers_path():
    with pytest.raises(ManifestError, match=r"template.tolerations\[0\].effect: 'Never' is none of"):
        check_as([{"effect": "Never"}], "list[V1Toleration]", "template.tolerations")
    with pytest.raises(ManifestError, match="document: a mapping is wanted, not list"):
        check([])
