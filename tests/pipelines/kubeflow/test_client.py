"""Connecting to Kubeflow Pipelines: whom we talk to, and every way in which that fails, in one line."""

from __future__ import annotations

import datetime
import ipaddress
import json
import re
import ssl
from types import SimpleNamespace

import pytest
import yaml

from components.shared.errors import UserError
from pipelines.__main__ import main
from pipelines.kubeflow.client import Access, Client
from tests.helpers.kfp_api import kfp_server
from tests.helpers.repository import ROOT

TOKEN = "secret-token-of-mine"


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No cluster is known here, neither by the environment nor by a file."""
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN", "KFP_SSL_CA_CERT", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("KF_PIPELINES_UI_ENDPOINT", "KUBERNETES_SERVICE_HOST", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    return tmp_path


def reached(*flags):
    """Where a command goes, and what it shows there; with a namespace, the server is not asked for one."""
    found = []

    def listed(client, **_):
        found.append((client.host, client._existing_config.get_api_key_with_prefix("authorization")))
        return SimpleNamespace(runs=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "list_runs", listed)
        main(["kubeflow", "status", "--namespace", "mine", *flags])
    return found[0]


def test_where_to_go_is_found_as_kfp_finds_it(alone, monkeypatch):
    assert reached("--host", "https://kf.example.org/pipeline/") == ("https://kf.example.org/pipeline", None)
    flags = ["--host", "kf.example.org", "--existing-token", TOKEN]
    assert reached(*flags) == ("https://kf.example.org", f"Bearer {TOKEN}")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "https://of-the-client.example.org")
    assert reached()[0] == "https://of-the-client.example.org"
    # the variables of the `kfp` command line win
    monkeypatch.setenv("KFP_ENDPOINT", "https://of-the-command.example.org")
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    assert reached() == ("https://of-the-command.example.org", f"Bearer {TOKEN}")
    assert reached("--host", "https://of-the-flag.example.org")[0] == "https://of-the-flag.example.org"


def kubeconfig(folder):
    clusters = [{"name": "here", "cluster": {"server": "https://here.example.org:6443"}}]
    contexts = [{"name": "here", "context": {"cluster": "here", "user": "me"}}]
    users = [{"name": "me", "user": {"token": TOKEN}}]
    content = {"clusters": clusters, "contexts": contexts, "users": users, "current-context": "here"}
    (folder / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **content}))


def test_without_a_host_the_kubeconfig_leads_to_it(alone):
    kubeconfig(alone)
    proxy = "api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
    assert reached() == (f"https://here.example.org:6443/{proxy}", f"Bearer {TOKEN}")
    with pytest.raises(UserError, match="give --host"):
        reached("--existing-token", TOKEN)


def test_in_a_pod_the_service_account_is_used(alone, monkeypatch):
    for name in ("token", "ca.crt", "kfp"):
        (alone / name).write_text(TOKEN if name != "ca.crt" else "-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(alone / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(alone / "ca.crt"))
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(alone / "kfp"))
    assert reached() == ("ml-pipeline.kubeflow.svc.cluster.local:8888", f"Bearer {TOKEN}")
    # the kubelet writes a new token
    client = Client(Access(namespace="mine"))
    (alone / "kfp").write_text("renewed")
    assert client._existing_config.get_api_key_with_prefix("authorization") == "Bearer renewed"


@pytest.mark.parametrize(
    ("access", "reason"),
    [
        ({}, "give --host or set KFP_ENDPOINT"),
        ({"host": "not a host"}, "'not a host'"),
        ({"host": "http://host:port"}, "check --host"),
        ({"host": "https://host", "ssl_ca_cert": "missing.pem"}, "no such file"),
    ],
)
def test_wrong_flags(alone, access, reason):
    with pytest.raises(UserError) as refused:
        Client(Access(**access))
    assert reason in str(refused.value)


def test_links_lead_to_the_page(alone, monkeypatch):
    access = Access(host="https://host/", namespace="mine")
    assert Client(access).link("runs", "details", "x") == "https://host/#/runs/details/x"
    assert Client(access, "https://page").link("a") == "https://page/#/a"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui")
    assert Client(access, "https://page").link("a") == "https://ui/#/a"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://user:hidden@ui")
    assert Client(access).link("a") == "https://ui/#/a"


def test_nothing_goes_past_the_client():
    called = r"client\.(_\w+|\w+_api|pipelines)\b|_service_"
    for path in (ROOT / "pipelines").rglob("*.py"):
        found = re.findall(called, path.read_text())
        assert not found or path.name == "client.py", (path.name, found)


def test_a_host_that_nobody_listens_on(kubeflow):
    told = kubeflow("status", "--host", "http://127.0.0.1:9").failure
    assert told == "http://127.0.0.1:9: can't be reached: Connection refused; check --host and the network"
    told = kubeflow("status", "--host", "http://user:hidden@nowhere.invalid").failure
    assert told.startswith("http://nowhere.invalid: can't be reached") and "hidden" not in told


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "does not know who you are; give a valid token with KFP_EXISTING_TOKEN"),
        (403, "does not allow you to do this; check --namespace"),
        (404, "found no such thing"),
        (409, "is there already"),
        (429, "asked too often"),
        (500, "failed; try again, or read the log of the pod ml-pipeline [500: made to fail with 500]"),
        (503, "failed; try again"),
        ("slow", "no answer within 3 s; try again, or raise --timeout"),
        ("cut request", "the connection was cut: "),
        ("cut answer", "the connection was cut: "),
        ("page", "answered, but not as Kubeflow Pipelines does"),
        ("redirect", "sends one on elsewhere, often to log in; give a token"),
    ],
)
def test_every_fault_is_one_line(kubeflow, fault, said):
    kubeflow.api.fail("GET .*/runs$", fault, times=9)
    told = kubeflow("status", *(["--timeout", "3"] if fault == "slow" else [])).failure
    assert told.startswith(kubeflow.api.url) and said in told


def test_a_token_is_sent_and_never_shown(kubeflow, monkeypatch):
    kubeflow.api.token = TOKEN
    assert "does not know who you are" in kubeflow("status").failure
    told = kubeflow("status", "--existing-token", "wrong-token").failure
    # the server says what it was given
    assert "Unauthenticated" in told and "wrong-token" not in told
    assert kubeflow("status", "--existing-token", TOKEN).status == 0
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    assert kubeflow("status").status == 0


def test_a_shared_kubeflow_needs_a_namespace(kubeflow, monkeypatch):
    kubeflow.api.multi_user, kubeflow.api.forbidden = True, ("theirs",)
    assert "say whose with --namespace [400: Invalid input error: a namespace" in kubeflow("status").failure
    assert "does not allow you" in kubeflow("status", "--namespace", "theirs").failure
    monkeypatch.setenv("KFP_NAMESPACE", "mine")
    assert kubeflow("submit", "--detach").status == 0
    assert [item["namespace"] for kind in ("pipelines", "experiments") for item in kubeflow.api.all(kind)] == [
        "mine"
    ] * 2
    assert kubeflow("schedule", "nightly", "0 0 * * *").status == 0
    assert "nightly" in kubeflow("schedules").out
    assert "no schedule" in kubeflow("schedules", "--namespace", "other").out


def test_kfps_memory_of_the_namespace_counts(kubeflow, tmp_path):
    kubeflow.api.multi_user = True
    (tmp_path / "context.json").write_text(json.dumps({"namespace": "mine"}))
    assert kubeflow("status").status == 0
    (tmp_path / "context.json").write_text("half of")
    assert "look at ~/.config/kfp/context.json" in kubeflow("status").failure


def test_long_lists_are_read_to_their_end(kubeflow, monkeypatch):
    monkeypatch.setattr("pipelines.kubeflow.client.PAGE_SIZE", 2)
    for hour in range(5):
        assert kubeflow("schedule", f"at-{hour}", f"0 {hour} * * *").status == 0
    lines = kubeflow("schedules").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [f"at-{hour}" for hour in range(5)]


def certificate(folder):
    """A certificate for loopback that nobody else signed, with its key, in one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "server.pem"
    path.write_bytes(private + built.public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_of_ones_own(kubeflow, tmp_path):
    path = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with kfp_server(context) as secure:
        assert secure.url.startswith("https://")
        told = kubeflow("status", "--host", secure.url).failure
        assert "its certificate can't be trusted" in told and "--ssl-ca-cert" in told
        assert kubeflow("status", "--host", secure.url, "--ssl-ca-cert", str(path)).status == 0
        kubeflow.monkeypatch.setenv("KFP_SSL_CA_CERT", str(path))
        assert kubeflow("status", "--host", secure.url).status == 0
