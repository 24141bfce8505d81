"""The webhook for new challengers: a real server's deliveries to the real receiver, and forged ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
import requests
from mlflow.webhooks.delivery import _generate_hmac_signature

from components.shared.errors import UserError
from pipelines.__main__ import main
from pipelines.review.details import announcement
from pipelines.review.webhook import LARGEST_BODY, TOLERANCE, distrust, post, sign
from tests.helpers.repository import ROOT
from tests.helpers.servers import free_port, mlflow_server, serving
from tests.helpers.waiting import until

SECRET = "a-secret-of-at-least-24-characters"
OLD_SECRET = "the-secret-before-it-was-changed"
MODEL = "contrastive-moths & <more>"
TAGS = {"verdict": "blessed", "gain": "0.2437", "gain_interval": "0.209 0.277", "confidence": "0.95"}
SERVE = [sys.executable, "-m", "pipelines", "webhook", "serve"]


class Inbox(BaseHTTPRequestHandler):
    """An incoming webhook, as a chat has it: keeps what it gets, answers what it is told to."""

    def do_POST(self):
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def inbox():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Inbox)
    server.got, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/services/very-secret"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def mlflow_url(tmp_path_factory):
    """A server that may call this machine, without the minute for which it keeps its list of webhooks."""
    env = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "0",
    }
    with mlflow_server(tmp_path_factory.mktemp("server"), env=env) as server:
        yield server


@pytest.fixture(scope="module")
def client(mlflow_url):
    """A client of that server with one version, tagged as `register` tags it, and everything pointed at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_url.url)
        patch.setenv("WEBHOOK_SECRET", SECRET)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(mlflow_url.url)
        client = mlflow.MlflowClient()
        client.create_registered_model(MODEL)
        yield client
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def receiver(client, inbox, tmp_path_factory):
    port = free_port()
    command = [*SERVE, "--port", port, "--page", "https://ml.example.org/"]
    env = {"PYTHONPATH": str(ROOT), "WEBHOOK_FORWARD": inbox.url, "WEBHOOK_PREVIOUS_SECRET": OLD_SECRET}
    with serving(command, port, "/health", tmp_path_factory.mktemp("receiver") / "log", env) as server:
        yield server


@pytest.fixture
def fresh(client):
    """Makes a version that was never challenger; returns its number."""
    return lambda tags=TAGS: str(client.create_model_version(MODEL, "s3://nowhere/model", tags=tags).version)


@pytest.fixture(scope="module")
def registered(receiver, client):
    """The name of a webhook that calls the receiver."""
    main(["webhook", "add", f"{receiver.url}/webhook"])
    return "challenger"


def event(version="1", alias="challenger", entity="model_version_alias", action="created", name=MODEL):
    data = {"name": name, "alias": alias, "version": version}
    return json.dumps(
        {"entity": entity, "action": action, "timestamp": "2026-11-22T10:00:00", "data": data}
    ).encode()


def deliver(receiver, body, secret=SECRET, age=0.0, sent=None, delivery=None, **headers):
    """Post a delivery as MLflow does, signed for `body`, with `sent` in its place."""
    delivery, timestamp = delivery or str(uuid.uuid4()), str(int(time.time() - age))
    signed = {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": timestamp,
        "X-MLflow-Signature": sign(secret, delivery, timestamp, body),
    }
    whole = {name: value for name, value in {**signed, **headers}.items() if value is not None}
    return requests.post(f"{receiver.url}/webhook", data=body if sent is None else sent, headers=whole, timeout=20)


def announced(receiver):
    """Lines that announce a challenger, or say that it could not be done."""
    return [line for line in receiver.log.read_text().splitlines() if "waits for review" in line]


@pytest.mark.slow
def test_a_new_challenger_is_announced_by_a_real_delivery_of_the_server(registered, receiver, client, inbox, fresh):
    before, got, number = len(announced(receiver)), len(inbox.got), fresh()
    client.set_registered_model_alias(MODEL, "staging", number)
    client.set_registered_model_alias(MODEL, "challenger", number)
    until(lambda: len(announced(receiver)) == before + 1, 90)
    line = announced(receiver)[-1]
    assert line == (
        f"{MODEL} version {number} waits for review: blessed, gain +24.4 points (95 % interval +20.9 to +27.7) | "
        f"https://ml.example.org/#/models/contrastive-moths%20%26%20%3Cmore%3E/versions/{number} | "
        f"contrastive review show {number} --model '{MODEL}'"
    )
    (posted,) = [json.loads(body) for body in inbox.got[got:]]
    assert posted == {"text": line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}


def test_a_version_that_the_pipeline_did_not_tag_says_so(receiver, fresh):
    number = fresh({})
    assert deliver(receiver, event(number)).status_code == 204
    said = f"version {number} waits for review: verdict unknown, not registered by the pipeline |"
    assert said in announced(receiver)[-1]


def test_the_secret_before_the_change_counts_as_long_as_the_receiver_has_it(receiver, fresh):
    before = len(announced(receiver))
    assert deliver(receiver, event(fresh()), secret=OLD_SECRET).status_code == 204
    assert len(announced(receiver)) == before + 1


@pytest.mark.parametrize(
    ("delivery", "answer"),
    [
        ({"secret": "another-secret-of-many-characters"}, "the signature does not match"),
        ({"sent": event("98")}, "the signature does not match"),
        ({"X-MLflow-Delivery-Id": "another"}, "the signature does not match"),
        # before any delivery of these tests, so never by chance the one that was signed
        ({"X-MLflow-Timestamp": str(int(time.time()) - 60)}, "the signature does not match"),
        ({"X-MLflow-Signature": None}, "not signed"),
        ({"X-MLflow-Delivery-Id": None}, "not signed"),
        ({"X-MLflow-Timestamp": None}, "not signed"),
        ({"X-MLflow-Signature": "v1,é".encode("latin-1")}, "the signature does not match"),
        ({"age": TOLERANCE + 5}, "its time is more than 300 seconds off"),
        ({"age": -TOLERANCE - 5}, "its time is more than 300 seconds off"),
    ],
    ids=["secret", "body", "id", "time", "no-signature", "no-id", "no-time", "bytes", "old", "future"],
)
def test_what_is_not_signed_or_not_fresh_is_refused_and_not_looked_at(receiver, inbox, delivery, answer):
    before, got = announced(receiver), len(inbox.got)
    answered = deliver(receiver, event(), **delivery)
    assert (answered.status_code, answered.text) == (401, answer)
    assert (announced(receiver), len(inbox.got)) == (before, got)


@pytest.mark.parametrize(
    "body",
    [event(alias="champion"), event("99"), event(name="no such model")],
    ids=["alias", "version-gone", "model-gone"],
)
def test_what_is_no_new_challenger_is_taken_and_announced_to_nobody(receiver, inbox, fresh, body):
    fresh()
    before, got = announced(receiver), len(inbox.got)
    assert deliver(receiver, body).status_code == 204
    assert (announced(receiver), len(inbox.got)) == (before, got)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"\xff", b"[" * 9999),
        *(event("1; reboot"), event("-1"), event(name=""), event(name=None)),
        *(event(action="deleted"), event(entity="prompt_alias")),
    ],
    ids=["empty", "cut", "list", "bytes", "deep", "command", "negative", "nameless", "null", "action", "entity"],
)
def test_what_is_signed_but_sets_no_alias_is_a_bad_request(receiver, body):
    before = announced(receiver)
    answered = deliver(receiver, body)
    assert (answered.status_code, answered.text) == (400, "not a set alias")
    assert announced(receiver) == before


def test_a_version_is_announced_once_however_often_it_is_delivered_or_put_up(receiver, inbox, fresh):
    before, got, number = len(announced(receiver)), len(inbox.got), fresh()
    repeated = str(uuid.uuid4())
    answers = [deliver(receiver, event(number), delivery=delivery) for delivery in (repeated, repeated, None)]
    assert [answer.status_code for answer in answers] == [204] * 3
    assert (len(announced(receiver)), len(inbox.got)) == (before + 1, got + 1)


def test_what_could_not_be_forwarded_is_announced_when_it_comes_again(receiver, inbox, fresh):
    before, delivery, body = len(announced(receiver)), str(uuid.uuid4()), event(fresh())
    inbox.answers[:] = [500, 302]
    answers = [deliver(receiver, body, delivery=delivery).status_code for _ in range(4)]
    assert answers == [503, 503, 204, 204]
    log = receiver.log.read_text()
    assert "error: not forwarded (answered 500): contrastive-moths" in log
    assert "error: not forwarded (answered 302)" in log
    assert "very-secret" not in log
    # twice in an error, once as an announcement
    assert len(announced(receiver)) == before + 3


def test_a_long_body_is_refused_before_it_is_read_whole(receiver):
    assert deliver(receiver, b" " * LARGEST_BODY).status_code == 400
    answered = deliver(receiver, b" " * (LARGEST_BODY + 1))
    assert (answered.status_code, answered.text) == (413, f"more than {LARGEST_BODY} bytes")
    assert deliver(receiver, event(), sent=(b" " * 1024 for _ in range(100))).status_code == 413


def test_other_paths_and_methods_are_not_served(receiver):
    assert requests.get(f"{receiver.url}/webhook", timeout=20).status_code == 405
    assert requests.post(f"{receiver.url}/", timeout=20).status_code == 404
    assert requests.get(f"{receiver.url}/docs", timeout=20).status_code == 404


def test_the_webhook_is_added_once_listed_tried_and_removed(registered, receiver, client, capsys):
    url = f"{receiver.url}/webhook"
    main(["webhook", "add", url])
    main(["webhook", "list"])
    main(["webhook", "test"])
    assert capsys.readouterr().out.splitlines() == [
        f"challenger: updated; the server uses it within a minute: {url}",
        f"challenger  ACTIVE  {url}  model_version_alias.created",
        "challenger: the receiver took a signed example and answered 204",
    ]
    main(["webhook", "add", "--name", "second", url])
    for _ in range(2):
        main(["webhook", "remove", "--name", "second"])
    assert capsys.readouterr().out.splitlines()[1:] == ["second: removed 1", "second: there is none"]
    assert SECRET not in receiver.log.read_text()


def test_a_secret_that_differs_is_said_by_the_test_and_mended_by_adding_again(registered, receiver, monkeypatch):
    url = f"{receiver.url}/webhook"
    with monkeypatch.context() as patch:
        patch.setenv("WEBHOOK_SECRET", "another-secret-of-many-characters")
        main(["webhook", "add", url])
    with pytest.raises(UserError, match=r"answered 401 the signature does not match; check the receiver and its"):
        main(["webhook", "test"])
    main(["webhook", "add", url])
    main(["webhook", "test"])


@pytest.mark.slow
def test_the_server_sends_again_what_was_not_announced_and_gives_up_on_a_receiver_that_is_away(
    registered, receiver, client, inbox, mlflow_url, fresh
):
    before, got, away = len(announced(receiver)), len(inbox.got), f"http://127.0.0.1:{free_port()}/webhook"
    main(["webhook", "add", "--name", "away", away])
    inbox.answers[:] = [500]
    number = fresh()
    try:
        client.set_registered_model_alias(MODEL, "challenger", number)
        until(lambda: f"Failed to send webhook to {away}" in mlflow_url.log.read_text(), 90)
        until(lambda: len(inbox.got) == got + 2, 90)
        # once in an error, once as an announcement
        until(lambda: len(announced(receiver)) == before + 2, 90)
    finally:
        inbox.answers.clear()
        main(["webhook", "remove", "--name", "away"])
    assert client.get_registered_model(MODEL).aliases["challenger"] == number


@pytest.mark.parametrize(
    ("command", "env", "message"),
    [
        (
            ["list"],
            {"MLFLOW_TRACKING_URI": "sqlite:///m.db"},
            "sqlite:///m.db: only a server has webhooks",
        ),
        (["list"], {"MLFLOW_TRACKING_URI": "http://u:p4ss@127.0.0.1:9"}, "http://127.0.0.1:9: "),
        (
            ["add", "http://h/webhook"],
            {"WEBHOOK_SECRET": ""},
            "WEBHOOK_SECRET: 0 characters; set it to at least 24",
        ),
        (["add", "h/webhook"], {}, "Invalid webhook URL"),
        (["add", "--name", "a/b", "http://127.0.0.1/"], {}, "Webhook name 'a/b' is invalid"),
        (["test", "--name", "other"], {}, "other: the server has no webhook of this name"),
        (["serve"], {"WEBHOOK_SECRET": "short"}, "WEBHOOK_SECRET: 5 characters; set it to at least 24"),
        (["serve"], {"WEBHOOK_PREVIOUS_SECRET": "short"}, "WEBHOOK_PREVIOUS_SECRET: 5 characters; set it to at"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_done_is_said_in_one_line(client, monkeypatch, command, env, message):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    try:
        with pytest.raises(UserError, match=re.escape(message)) as error:
            main(["webhook", *command])
        assert "\n" not in str(error.value)
        assert "p4ss" not in str(error.value)
    finally:
        monkeypatch.undo()
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])


def test_the_secret_is_no_option():
    helped = subprocess.run([*SERVE, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--forward" in helped
    assert "--secret" not in helped


def test_signatures_are_those_of_mlflow():
    made = sign(SECRET, "an-id", "1700000000", "{é}".encode())
    assert made == _generate_hmac_signature(SECRET, "an-id", "1700000000", "{é}")
    # worked out with openssl dgst -sha256 -hmac
    assert sign("k" * 24, "i", "1", b"{}") == "v1,uq8WYGTT+wzg1E8rVklK660acVf/8NSHLpz2XFFz5ZQ="
    headers = {"x-mlflow-delivery-id": "an-id", "x-mlflow-timestamp": "1700000000", "x-mlflow-signature": made}
    assert "seconds off" in distrust(headers, "{é}".encode(), [OLD_SECRET, SECRET])


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({}, "review: verdict unknown, not registered by the pipeline |"),
        ({"verdict": "not blessed", "gain": "-0.01"}, "review: not blessed, gain -1.0 points |"),
        ({"verdict": "blessed", "gain": "much"}, "review: blessed |"),
        ({**TAGS, "gain_interval": " "}, "review: blessed, gain +24.4 points |"),
        ({"verdict": "a\nb\x1b[2J"}, r"review: a\nb\x1b[2J |"),
    ],
)
def test_an_announcement_says_what_is_known_in_one_line(tags, said):
    text = announcement("m", "3", tags, "http://h/")
    assert said in text
    assert text.endswith("| http://h/#/models/m/versions/3 | contrastive review show 3 --model m")
    assert text.isprintable()


def test_the_command_of_an_announcement_runs_as_it_stands(client):
    text = announcement("moths'; reboot", "3", TAGS, "http://h")
    command = shlex.split(text.rpartition("| ")[2])
    assert command[0] == "contrastive"
    with pytest.raises(UserError, match=re.escape("moths'; reboot")):
        main(command[1:])


def test_an_address_that_is_away_is_not_repeated():
    with pytest.raises(UserError, match=r"^not forwarded \(ConnectionError\): the text$") as error:
        post(f"http://127.0.0.1:{free_port()}/services/very-secret", "the text")
    assert "very-secret" not in str(error.value)
