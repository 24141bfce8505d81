"""Manifests, compose file and image of the tracking server say the same as the scripts that are tested."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.helpers.deployment import MANIFESTS, SECRETS, environment, manifests
from tests.helpers.kubernetes_types import check, pod_specs
from tests.helpers.repository import ROOT

SERVER = ROOT / "mlflow"
COMPOSE = yaml.safe_load((SERVER / "compose.yaml").read_text())
POD_KINDS = {"Deployment", "StatefulSet", "CronJob", "Job"}


def named(kind, name):
    (found,) = (item for item in manifests() if (item["kind"], item["metadata"]["name"]) == (kind, name))
    return found


def pods():
    return [(item["metadata"]["name"], spec) for item in manifests() for _, spec in pod_specs(item)]


def containers():
    return [(pod, one) for pod, spec in pods() for one in [*spec.get("initContainers", []), *spec["containers"]]]


def test_kubernetes_types_accept_every_manifest():
    kinds = [item["kind"] for item in manifests()]
    for item in manifests():
        check(item)
    assert {"Namespace", "Secret", "ConfigMap", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= set(kinds)
    assert kinds.count("StatefulSet") == 2
    assert len(pods()) == 5


def test_what_kustomize_makes_is_accepted_too():
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run(["kubectl", "kustomize", MANIFESTS], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    documents = list(yaml.safe_load_all(made.stdout))
    for document in documents:
        check(document)
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "mlflow"
        assert document["kind"] != "Secret"
    images = {image.partition("@")[0] for image in re.findall(r"image: (\S+)", made.stdout)}
    assert images == {"postgres:17", "chrislusf/seaweedfs:4.48", named_image()}


def test_what_is_pulled_from_elsewhere_is_named_by_one_digest_everywhere():
    files = [ROOT / "Dockerfile", SERVER / "Dockerfile", SERVER / "compose.yaml", *MANIFESTS.glob("*.yaml")]
    image = re.compile(r"(?:ARG BASE=|image: )([\w./-]+:[\w.@:-]+)")
    named = [name for file in files for name in image.findall(file.read_text())]
    # built here, and pushed to the team's own registry
    pulled = {name for name in named if "mlflow-server" not in name}
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", name) for name in pulled), pulled
    assert sorted(name.partition("@")[0] for name in pulled) == [
        *("chrislusf/seaweedfs:4.48", "postgres:17", "python:3.11-slim-bookworm", "python:3.11-slim-trixie"),
    ]


def named_image():
    (chosen,) = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["images"]
    return f"{chosen['newName']}:{chosen['newTag']}"


def test_pods_run_without_rights_and_with_bounds():
    for pod, spec in pods():
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["runAsUser"] > 0, pod
        assert spec["automountServiceAccountToken"] is False, pod
        # a service called mlflow would set MLFLOW_PORT
        assert spec["enableServiceLinks"] is False, pod
    for pod, one in containers():
        context = one["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, pod
        assert context["allowPrivilegeEscalation"] is False, pod
        assert context["capabilities"] == {"drop": ["ALL"]}, pod
        assert {"cpu", "memory"} <= set(one["resources"]["requests"]), pod
        assert "memory" in one["resources"]["limits"], pod
        assert "/tmp" in {mount["mountPath"] for mount in one["volumeMounts"]}, pod


def test_what_serves_is_probed():
    served = [(pod, one) for pod, one in containers() if "ports" in one]
    assert len(served) == 3
    for pod, one in served:
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(one), pod
        names = {port["name"] for port in one["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            http = one[probe].get("httpGet")
            assert http is None or http["port"] in names, pod


def test_services_and_policies_reach_pods_that_are_there():
    specs = [item["spec"] for item in manifests() if item["kind"] in POD_KINDS]
    templates = [spec.get("jobTemplate", {}).get("spec", spec)["template"] for spec in specs]
    known = {value for template in templates for value in template["metadata"]["labels"].values()}
    for item in manifests():
        if item["kind"] == "Service":
            assert set(item["spec"]["selector"].values()) <= known
        if item["kind"] == "NetworkPolicy":
            text = json.dumps(item["spec"])
            assert set(re.findall(r'"app.kubernetes.io/name": "(\w+)"', text)) <= known
    settings = named("ConfigMap", "server")["data"]
    assert "@postgres:5432/" in settings["MLFLOW_BACKEND_STORE_URI"]
    assert settings["MLFLOW_S3_ENDPOINT_URL"] == "http://store:8333"
    assert named("Service", "store")["spec"]["ports"][0]["port"] == 8333
    assert named("Service", "postgres")["spec"]["ports"][0]["port"] == 5432


def test_the_server_gets_every_setting_that_its_script_wants():
    """Names in the script's head: each is set by a ConfigMap, a Secret, or has a default."""
    head = (SERVER / "serve.sh").read_text().split("set -euo")[0]
    names = set(re.findall(r"\b(?:MLFLOW|AWS)_[A-Z_0-9]+|PGPASSWORD", head)) - {"MLFLOW_AUTH_ADMIN_USERNAME"}
    given = set(named("ConfigMap", "server")["data"])
    for secret in ("database", "store", "server"):
        given |= set(named("Secret", secret)["stringData"])
    assert names <= given
    assert set(SECRETS) <= given
    one = named("Deployment", "mlflow")["spec"]["template"]["spec"]
    for part in (one["initContainers"][0], one["containers"][0]):
        assert [next(iter(source.values()))["name"] for source in part["envFrom"]] == [
            "server", "database", "store", "server",
        ]  # fmt: skip


def test_no_real_secret_is_tracked():
    values = [value for item in manifests() if item["kind"] == "Secret" for value in item["stringData"].values()]
    assert set(values) == {"REPLACE-ME", "mlflow"}
    example = (SERVER / ".env.example").read_text()
    secrets = re.findall(r"^(\w*(?:PASSWORD|SECRET|ENCRYPTION)\w*)=(.*)$", example, re.M)
    assert len(secrets) == 5
    assert {value for _, value in secrets} == {""}
    ignored = subprocess.run(["git", "check-ignore", "-q", "mlflow/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_containers_run_the_scripts_that_the_tests_run():
    dockerfile = (SERVER / "Dockerfile").read_text()
    assert "COPY --chmod=0755 serve.sh backup.sh /usr/local/bin/" in dockerfile
    assert 'ENTRYPOINT ["serve.sh"]' in dockerfile
    assert 'CMD ["serve"]' in dockerfile
    assert 'HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["serve.sh", "health"]' in dockerfile
    assert re.search(r"^USER 10001:10001$", dockerfile, re.M)
    own = [one for _, one in containers() if "mlflow-server" in one["image"]]
    assert [(one.get("command"), one["args"][0]) for one in own] == [
        (["backup.sh"], "save"), (["backup.sh"], "restore"), (None, "migrate"), (None, "serve"),
    ]  # fmt: skip
    services = COMPOSE["services"]
    assert [services[name]["command"] for name in ("migrate", "server", "backup")] == [
        ["migrate"], ["serve"], ["save", "/backups"],
    ]  # fmt: skip
    assert services["backup"]["entrypoint"] == ["backup.sh"]


def test_one_version_everywhere():
    version = re.search(r'"mlflow==([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    lock = (SERVER / "requirements.lock").read_text()
    assert f"mlflow=={version} " in lock
    assert named_image().endswith(f":{version}")
    assert COMPOSE["services"]["server"]["image"].endswith(f":{version}")
    assert f'version="{version}"' in (SERVER / "Dockerfile").read_text()
    database = COMPOSE["services"]["postgres"]["image"]
    assert f"postgresql-client-{re.match('postgres:([0-9]+)@', database)[1]}" in (SERVER / "Dockerfile").read_text()


def test_the_servers_lock_is_part_of_the_environment_that_the_tests_use():
    pins = re.compile(r"^([A-Za-z0-9_.-]+==\S+)", re.M)
    server = set(pins.findall((SERVER / "requirements.lock").read_text()))
    assert server <= set(pins.findall((ROOT / "requirements.lock").read_text()))
    names = {pin.partition("==")[0].lower() for pin in server}
    assert {"mlflow", "boto3", "flask-wtf", "psycopg2-binary"} <= names
    assert not names & {"tensorflow-cpu", "tensorflow", "keras", "kfp", "dvc", "great-expectations"}


def test_compose_has_what_it_names():
    services = COMPOSE["services"]
    for name, service in services.items():
        assert "image" in service, name
        for other, wanted in service.get("depends_on", {}).items():
            healthy = wanted["condition"] == "service_healthy"
            assert not healthy or "healthcheck" in services[other], name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"], name
    given = set(re.findall(r"^(\w+)=", (SERVER / ".env.example").read_text(), re.M))
    wanted = set(re.findall(r"\$\{(\w+)", (SERVER / "compose.yaml").read_text())) - {"COMMIT"}
    assert wanted == given
    # what serve.sh needs, and the same as in the manifests
    assert set(services["server"]["environment"]) == set(environment()) - {"PATH", "HOME", "WORKERS"} | {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
    }
    for setting, value in named("ConfigMap", "server")["data"].items():
        if setting != "MLFLOW_SERVER_ALLOWED_HOSTS":
            assert services["server"]["environment"][setting] == value


def test_docker_compose_accepts_the_file():
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("docker compose is not installed")
    keys = re.findall(r"\$\{(\w+)", (SERVER / "compose.yaml").read_text())
    command = [docker, "compose", "--file", SERVER / "compose.yaml", "config", "--quiet"]
    done = subprocess.run(command, env=dict.fromkeys(keys, "5000"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
