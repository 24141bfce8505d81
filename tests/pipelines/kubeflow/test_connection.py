"""Connecting to Kubeflow Pipelines: whom we talk to, and every way in which that fails, in one line."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl

import kfp
import pytest
import yaml

from components.shared.errors import UserError
from pipelines.command_line import new_group, shared_options
from pipelines.kubeflow import connection
from pipelines.kubeflow.connection import connect
from pipelines.kubeflow.options import ClusterOptions
from tests.helpers.kfp_api import kfp_server

TOKEN = "secret-token-of-mine"


def options(*words):
    app = new_group("")

    @app.command()
    @shared_options
    def command(cluster: ClusterOptions):
        return cluster

    return app(list(words), standalone_mode=False)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No cluster is known here, neither by the environment nor by a file."""
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN", "KFP_SSL_CA_CERT", "KF_PIPELINES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("KF_PIPELINES_UI_ENDPOINT", "KUBERNETES_SERVICE_HOST", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    return tmp_path


def kfps_own(host=None, token=None, context=None):
    """What KFP's client makes of the same flags; it is not let to call anyone."""
    client = object.__new__(kfp.Client)
    host = host or connection.os.environ.get("KF_PIPELINES_ENDPOINT")
    return client._load_config(host, None, "kubeflow", None, None, token, None, None, context, None, None)


def ours(*words):
    return connect(options(*words))._configuration


def said(configuration):
    """What a server is told by it, and where it is."""
    names = ("api_key", "verify_ssl", "ssl_ca_cert", "cert_file", "key_file")
    host = configuration.host.removeprefix("http://").rstrip("/")
    token = configuration.get_api_key_with_prefix("authorization")
    return {"host": host, "token": token, **{name: getattr(configuration, name) for name in names}}


@pytest.mark.filterwarnings("ignore:The host kf.example.org")
@pytest.mark.parametrize("host", ["https://kf.example.org/pipeline/", "http://localhost:8080", "kf.example.org"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_flags_mean_what_they_mean_to_kfps_client(alone, host, token):
    words = ["--host", host, *(["--existing-token", token] if token else [])]
    assert said(ours(*words)) == said(kfps_own(host, token))


def test_the_environment_means_what_it_means_to_kfp(alone, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "https://of-the-client.example.org")
    assert said(ours()) == said(kfps_own())
    # the variables of the `kfp` command line are flags to the client, and win
    monkeypatch.setenv("KFP_ENDPOINT", "https://of-the-command.example.org")
    monkeypatch.setenv("KFP_EXISTING_TOKEN", TOKEN)
    assert said(ours()) == said(kfps_own("https://of-the-command.example.org", TOKEN))
    assert ours("--host", "https://of-the-flag.example.org").host == "https://of-the-flag.example.org"


def kubeconfig(folder):
    clusters = [
        {"name": name, "cluster": {"server": f"https://{name}.example.org:6443"}} for name in ("here", "there")
    ]
    contexts = [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("here", "there")]
    users = [{"name": "me", "user": {"token": TOKEN}}]
    content = {"clusters": clusters, "contexts": contexts, "users": users, "current-context": "here"}
    (folder / "kubeconfig").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **content}))


def test_without_a_host_the_kubeconfig_leads_to_it(alone):
    kubeconfig(alone)
    assert said(ours()) == said(kfps_own())
    assert said(ours("--kube-context", "there")) == said(kfps_own(context="there"))
    assert ours("--system-namespace", "ml").host.endswith("/api/v1/namespaces/ml/services/ml-pipeline:http/proxy")
    with pytest.raises(UserError, match="context nowhere"):
        ours("--kube-context", "nowhere")


def test_in_a_pod_the_service_account_is_used(alone, monkeypatch):
    for name in ("token", "ca.crt", "kfp"):
        (alone / name).write_text(TOKEN if name != "ca.crt" else "-----BEGIN CERTIFICATE-----\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(alone / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(alone / "ca.crt"))
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(alone / "kfp"))
    found = ours()
    assert said(found) == said(kfps_own())
    assert found.host == "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
    # the kubelet writes a new token
    (alone / "kfp").write_text("renewed")
    assert found.get_api_key_with_prefix("authorization") == "Bearer renewed"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --host or set KFP_ENDPOINT"),
        (["--host", "not a host"], "is no address"),
        (["--host", "http://host:port"], "is no address"),
        (["--host", "https://host", "--ssl-ca-cert", "missing.pem"], "no such file"),
        (["--host", "https://host", "--timeout", "0"], "--timeout = 0"),
    ],
)
def test_wrong_flags(alone, words, said):
    with pytest.raises(UserError) as refused:
        connect(options(*words))
    assert said in str(refused.value)


def test_links_lead_to_the_page(alone, monkeypatch):
    assert (
        connect(options("--host", "https://host/")).link("runs", "details", "x") == "https://host/#/runs/details/x"
    )
    assert connect(options("--host", "https://host"), "https://page").link("a") == "https://page/#/a"
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://ui")
    assert connect(options("--host", "https://host"), "https://page").link("a") == "https://ui/#/a"
    kubeconfig(alone)
    monkeypatch.delenv("KF_PIPELINES_UI_ENDPOINT")
    assert connect(options()).link("a") is None


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
        ("slow", "no answer within 1 s; try again, or raise --timeout"),
        ("cut request", "the connection was cut: "),
        ("cut answer", "the connection was cut: "),
        ("page", "answered, but not as Kubeflow Pipelines does"),
        ("redirect", "sends one on to https://login.example.org/auth;"),
    ],
)
@pytest.mark.parametrize("command", ["status", "schedules"])
def test_every_fault_is_one_line(kubeflow, command, fault, said):
    kubeflow.api.fail("GET .*/(runs|recurringruns|pipelines)$", fault, times=9)
    told = kubeflow(command, *(["--timeout", "1"] if fault == "slow" else [])).failure
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
    assert "say whose with --namespace or KFP_NAMESPACE" in kubeflow("status").failure
    assert "does not allow you" in kubeflow("status", "--namespace", "theirs").failure
    monkeypatch.setenv("KFP_NAMESPACE", "mine")
    assert kubeflow("submit", "--detach").status == 0
    assert [item["namespace"] for kind in ("pipelines", "experiments") for item in kubeflow.api.all(kind)] == [
        "mine"
    ] * 2
    assert kubeflow("schedule", "nightly", "@daily").status == 0
    assert "nightly" in kubeflow("schedules").out
    assert "no schedule" in kubeflow("schedules", "--namespace", "other").out


def test_kfps_memory_of_the_namespace_counts(kubeflow, tmp_path):
    kubeflow.api.multi_user = True
    (tmp_path / ".config" / "kfp").mkdir(parents=True)
    (tmp_path / ".config" / "kfp" / "context.json").write_text(json.dumps({"namespace": "mine"}))
    assert kubeflow("status").status == 0


def test_long_lists_are_read_to_their_end(kubeflow, monkeypatch):
    monkeypatch.setattr(connection, "PAGE_SIZE", 2)
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
