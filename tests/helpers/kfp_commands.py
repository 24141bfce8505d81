"""The commands that talk to a cluster, run in this process against a server in this process."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.shared.errors import exit_cleanly
from pipelines.kubeflow import releases
from tests.helpers.kfp_api import kfp_server
from tests.helpers.kfp_state import KfpApi
from tests.helpers.remembering import remembered

COMMIT = "0123456789ab"
COMPILED = remembered(releases.compiled)


@dataclass(frozen=True)
class Done:
    """What a command left behind: exit status, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def failure(self) -> str:
        """The one line of a failure; anything else is none."""
        lines = self.err.splitlines()
        if self.status != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
            raise AssertionError(f"status {self.status}, and on the error stream:\n{self.err}\n{self.out}")
        return lines[0].removeprefix("error: ")


@dataclass
class Kubeflow:
    """The server, and a way to run a command against it."""

    api: KfpApi
    monkeypatch: Any

    @classmethod
    @contextlib.contextmanager
    def serving(cls, folder: Path, monkeypatch: Any) -> Iterator[Kubeflow]:
        """Start the server; the environment names it, and nothing of this machine's own cluster is seen."""
        for name in ("NAMESPACE", "EXISTING_TOKEN", "SSL_CA_CERT"):
            monkeypatch.delenv(f"KFP_{name}", raising=False)
        for name in ("ENDPOINT", "UI_ENDPOINT", "DEFAULT_EXPERIMENT_NAME"):
            monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
        for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setattr("kfp.Client._LOCAL_KFP_CONTEXT", str(folder / "context.json"))
        monkeypatch.setenv("GIT_COMMIT", COMMIT)
        monkeypatch.setattr("pipelines.kubeflow.cluster.uncommitted", lambda: False)
        monkeypatch.setattr("pipelines.kubeflow.runs.INTERVAL", 0.01)
        monkeypatch.setattr("pipelines.kubeflow.releases.compiled", COMPILED)
        with kfp_server() as api:
            monkeypatch.setenv("KFP_ENDPOINT", api.url)
            yield cls(api, monkeypatch)

    def __call__(self, *words: str) -> Done:
        from pipelines.__main__ import main

        out, err, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                exit_cleanly(lambda: main(["kubeflow", *words]))
            except SystemExit as left:
                status = int(left.code or 0)
        return Done(status, out.getvalue(), err.getvalue())

    def requests(self, method: str, path: str = "") -> list[tuple[str, str, int]]:
        """What was asked of the server, of one method and with this in its path."""
        return [call for call in self.api.calls if call[0] == method and path in call[1]]
