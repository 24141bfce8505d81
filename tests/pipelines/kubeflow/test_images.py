"""`--check-image`, against a registry of this process."""

from __future__ import annotations

import contextlib
import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from components.shared.errors import UserError
from pipelines.kubeflow.cluster import compose_cluster
from pipelines.kubeflow.images import _parts, check_images
from tests.helpers.kfp_commands import COMMIT
from tests.helpers.servers import answering, free_port

INDEX = "application/vnd.oci.image.index.v1+json"


class Registry:
    """Images by name and tag; with a token, a service gives it to whoever asks, or to nobody."""

    def __init__(self):
        self.images, self.token, self.gives, self.status, self.kind = set(), None, True, None, INDEX
        self.asked = []

    @contextlib.contextmanager
    def serving(self):
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                path = urlsplit(self.path).path
                registry.asked.append(path)
                name, _, tag = path.removeprefix("/v2/").partition("/manifests/")
                if registry.token and self.headers.get("Authorization") != f"Bearer {registry.token}":
                    where = f'Bearer realm="{registry.url}/token",service="here",scope="repository:{name}:pull"'
                    return self.answer(401, {"WWW-Authenticate": where})
                known = f"{name}:{tag}" in registry.images and INDEX in self.headers["Accept"]
                return self.answer(registry.status or (200 if known else 404), {"Content-Type": registry.kind})

            def do_GET(self):
                wanted = parse_qs(urlsplit(self.path).query)
                assert wanted == {"service": ["here"], "scope": ["repository:team/moths:pull"]}
                body = json.dumps({"token": registry.token if registry.gives else "none"}).encode()
                self.answer(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
                self.wfile.write(body)

            def answer(self, status, headers):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        with answering(Handler) as self.url:
            yield self


@pytest.fixture
def registry(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("no_proxy", "*")
    with Registry().serving() as found:
        yield found


def image(registry):
    return f"{registry.url.removeprefix('http://')}/team/moths"


def check(registry, *words):
    check_images(compose_cluster([*words, f"cluster.image={image(registry)}"]), COMMIT, 30)


def refused(registry, *words):
    with pytest.raises(UserError) as error:
        check(registry, *words)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_registry_is_asked_only_if_told_to_and_before_the_cluster(kubeflow, registry):
    named = f"cluster.image={image(registry)}"
    for command in (["submit"], ["schedule", "nightly", "0 0 * * *"]):
        assert kubeflow(*command, "--check-image", named).failure == (
            f"cluster.image = {image(registry)}:{COMMIT}: not in the registry; build it with make image and push "
            "it, or leave --check-image out"
        )
    assert kubeflow.api.calls == [] and len(registry.asked) == 2
    assert kubeflow("submit", "--detach", named).status == 0
    assert len(registry.asked) == 2


def test_both_images_are_asked_for(registry, capsys):
    registry.images = {f"team/moths:{COMMIT}", f"team/moths:{COMMIT}-gpu"}
    check(registry)
    assert registry.asked == [f"/v2/team/moths/manifests/{COMMIT}{end}" for end in ("", "-gpu")]
    check(registry, "cluster=cpu")
    assert len(registry.asked) == 3
    assert capsys.readouterr() == ("", "")


def test_a_missing_image_for_gpus_is_a_warning(registry, capsys):
    registry.images = {f"team/moths:{COMMIT}"}
    check(registry)
    assert capsys.readouterr().err == (
        f"warning: {image(registry)}:{COMMIT}-gpu: not in the registry; pretrain, search, baseline, finetune need "
        "it: make image GPU=1, and push it\n"
    )


def test_a_token_is_fetched_where_the_registry_says(registry, tmp_path):
    registry.images, registry.token = {f"team/moths:{COMMIT}"}, "abc"
    # an account does not get into the token's way
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    check(registry, "cluster=cpu")
    registry.gives = False
    told = refused(registry, "cluster=cpu")
    assert told.startswith(f"{image(registry)}:{COMMIT}: ")
    assert "[401]; give an account for it in ~/.netrc, or leave --check-image out" in told


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (403, INDEX, "does not tell without a right to pull it [403]"),
        (500, INDEX, "answered 500, but not as a registry does"),
        (200, "text/html", "answered 200, but not as a registry does"),
    ],
)
def test_other_answers_are_one_line(registry, status, kind, said):
    registry.status, registry.kind = status, kind
    assert said in refused(registry)


def test_a_registry_that_is_away_is_one_line(registry):
    registry.url = f"http://127.0.0.1:{free_port()}"
    host = registry.url.removeprefix("http://")
    assert refused(registry) == (
        f"{host}/team/moths:{COMMIT}: {host} can't be asked: Connection refused; check the name and the network, "
        "or leave --check-image out"
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("moths:1", ("registry-1.docker.io", "library/moths", "1")),
        ("team/moths:1", ("registry-1.docker.io", "team/moths", "1")),
        ("docker.io/team/moths:1", ("registry-1.docker.io", "team/moths", "1")),
        ("localhost/moths:1", ("localhost", "moths", "1")),
        ("r.example.org:5000/a/b/moths:1", ("r.example.org:5000", "a/b/moths", "1")),
        ("r.example.org/moths:1@sha256:00", ("r.example.org", "moths", "sha256:00")),
    ],
)
def test_names_are_read_as_container_engines_read_them(name, parts):
    assert _parts(name) == parts
