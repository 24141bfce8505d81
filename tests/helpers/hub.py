"""A server that speaks what the Hugging Face Hub's client asks for when it pushes a model and fetches it again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import yaml

from tests.helpers.servers import answering

TOKEN = "hf_for_this_test"
LICENSES = ("apache-2.0", "mit")


@dataclass
class Repository:
    """What was pushed: its files as they are now, and the message of each commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return hashlib.sha1(f"{len(self.commits)}".encode()).hexdigest()


@dataclass
class Hub:
    """The server's state. `refused` maps a pattern of request lines to the status that they are answered with."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


def front_matter(readme: bytes) -> dict:
    return yaml.safe_load(readme.decode().split("---\n")[1])


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0]
            line = f"{self.command} {path}"
            hub.requests.append(line)
            refused = next((status for pattern, status in hub.refused.items() if re.search(pattern, line)), None)
            if refused:
                return self._json({"error": "refused"}, refused)
            # large files go to a storage that has signed addresses instead
            if not path.startswith("/large/") and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                message = "Invalid credentials in Authorization header"
                return self._json({"error": message}, 401, {"X-Error-Message": message})
            if line == "POST /api/repos/create":
                return self._create(json.loads(data))
            if line == "POST /api/validate-yaml":
                named = front_matter(json.loads(data)["content"].encode()).get("license", "mit")
                wrong = [] if named in LICENSES else [{"message": f'"license" must be one of {LICENSES}'}]
                return self._json({"errors": wrong, "warnings": []}, 400 if wrong else 200)
            if path.startswith("/large/"):
                hub.large[path.removeprefix("/large/")] = data
                return self._json({})
            found = re.match(r"/(?:api/models/)?([\w.-]+/[\w-]+)(?:\.git/info/lfs/objects)?/?(.*)", path)
            if found is None or found[1] not in hub.repositories:
                return self._json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return self._of_repository(found[1], found[2], data)

        def _create(self, asked: dict) -> None:
            name = f"{asked['organization']}/{asked['name']}"
            if name in hub.repositories:
                return self._json({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
            hub.repositories[name] = Repository(private=asked["visibility"] == "private")
            return self._json({"url": f"{hub.url}/{name}"})

        def _of_repository(self, name: str, what: str, data: bytes) -> None:
            repository = hub.repositories[name]
            if what == "preupload/main":
                files = [
                    {"path": file["path"], "shouldIgnore": False, "uploadMode": mode}
                    for file in json.loads(data)["files"]
                    for mode in ["lfs" if file["path"].endswith((".keras", ".h5")) else "regular"]
                ]
                return self._json({"files": files})
            if what == "batch":
                return self._json(
                    {
                        "transfer": "basic",
                        "objects": [
                            {**one, "actions": {"upload": {"href": f"{hub.url}/large/{one['oid']}"}}}
                            for one in json.loads(data)["objects"]
                        ],
                    }
                )
            if what == "commit/main":
                for entry in map(json.loads, data.splitlines()):
                    value = entry["value"]
                    if entry["key"] == "header":
                        repository.commits.append(value["summary"])
                    elif entry["key"] == "file":
                        repository.files[value["path"]] = base64.b64decode(value["content"])
                    else:
                        repository.files[value["path"]] = hub.large[value["oid"]]
                commit = {"commitOid": repository.head, "commitUrl": f"{hub.url}/{name}/commit/{repository.head}"}
                return self._json({"success": True, **commit})
            if what.startswith("tree/"):
                return self._json(
                    [
                        {
                            "type": "file",
                            "path": path,
                            "size": len(content),
                            "oid": hashlib.sha1(content).hexdigest(),
                        }
                        for path, content in repository.files.items()
                    ]
                )
            if what.startswith("resolve/"):
                content = repository.files[what.split("/", 2)[2]]
                more = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": repository.head}
                return self._answer(200, content, "application/octet-stream", more)
            # the repository itself, at whatever revision
            siblings = [{"rfilename": path} for path in repository.files]
            told = {"id": name, "private": repository.private, "sha": repository.head, "siblings": siblings}
            return self._json(told)

        def _json(self, value: object, status: int = 200, more: dict[str, str] | None = None) -> None:
            self._answer(status, json.dumps(value).encode(), "application/json", more)

        def _answer(self, status: int, data: bytes, kind: str, more: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(more or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with answering(Handler) as hub.url:
        yield hub
