"""What the image is made of, and `make image`. .ci/image builds it and tries it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

from components.shared.errors import UserError
from components.shared.tracking.client import connect
from pipelines.__main__ import main
from tests.helpers.repository import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
SERVER = (ROOT / "mlflow" / "Dockerfile").read_text()
LOCKS = ("requirements-cpu.lock", "requirements-gpu.lock")


def pins(lock):
    """Name → versions of a lock; an extra is not part of the name."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / lock).read_text(), re.M
    ):
        found.setdefault(name, set()).add(version)
    return found


def test_every_install_is_locked_and_nothing_is_fetched_besides():
    lines = TEXT.replace("\\\n", " ")
    installs = re.findall(r"pip install.*?(?=&&|\n)", lines)
    assert len(installs) == 3
    assert all(
        "--require-hashes" in install and re.search(r" -r /build/(uv\.lock|sbom\.lock|\$\{LOCK\})", install)
        for install in installs
    )
    assert "--compile-bytecode" in installs[1]
    assert re.search(r"\b(curl|wget|apt-get|ADD)\b", lines) is None


def test_what_lists_the_packages_is_in_the_versions_tested_and_in_no_image():
    tool, tested = pins("mlflow/sbom.lock"), pins("requirements.lock")
    assert "cyclonedx-bom" in tool and "cyclonedx-bom" not in tested
    assert {name: found for name, found in tool.items() if name in tested and found != tested[name]} == {}
    for lock in (*LOCKS, "mlflow/requirements.lock"):
        assert "cyclonedx-bom" not in pins(lock)


def test_a_list_that_lacks_a_package_or_names_one_too_many_is_told(tmp_path):
    known = {(each.name, each.version) for each in distributions()}
    program, path = ROOT / "tests" / "helpers" / "sbom.py", tmp_path / "sbom.cdx.json"

    def check(packages, purl="pkg:pypi/a"):
        components = [{"name": name, "version": version, "purl": purl} for name, version in packages]
        path.write_text(json.dumps({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": components}))
        done = subprocess.run([sys.executable, program, path], capture_output=True, text=True, cwd=tmp_path)
        return (done.stdout if done.returncode == 0 else done.stderr).strip()

    assert re.fullmatch(r"\d+ packages are installed, and listed", check(known))
    assert "installed only: [('keras', " in check({each for each in known if each[0] != "keras"})
    assert "listed only: [('nothing', '1')], installed only: []" in check({*known, ("nothing", "1")})
    assert "listed without the address of a package" in check(known, purl="")


def test_the_python_is_the_one_that_the_locks_are_made_for():
    version = re.search(r"^ARG BASE=python:(3\.\d+)-slim-\w+@sha256:", TEXT, re.M)[1]
    assert f"--python-version {version}" in (ROOT / "Makefile").read_text()
    assert version == f"{sys.version_info.major}.{sys.version_info.minor}" or sys.version_info[:2] == (3, 12)


def test_the_lock_of_the_image_pins_what_was_tested_and_brings_no_tools():
    tested, image = pins("requirements.lock"), pins("requirements-cpu.lock")
    assert {name: versions for name, versions in image.items() if versions != tested.get(name)} == {}
    development = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    names = {re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower() for requirement in development}
    assert {"pytest", "ruff", "uv"} <= names
    assert names & set(image) == set()
    assert {"tensorflow-cpu", "mlflow", "kfp", "boto3", "model-signing", "pyopenssl"} <= set(image)


def test_the_lock_for_cards_has_both_backends_and_the_pipelines_own_versions():
    gpu, tested = pins("requirements-gpu.lock"), pins("requirements.lock")
    assert {"tensorflow", "jax", "jax-cuda12-plugin", "nvidia-cudnn-cu12", "nvidia-nccl-cu12", "boto3"} <= set(gpu)
    for name in ("keras", "jax", "mlflow", "kfp", "great-expectations", "numpy", "pandas"):
        assert gpu[name] == tested[name], name
    assert gpu["tensorflow"] == tested["tensorflow-cpu"]


def test_what_make_image_wants_committed_is_what_the_image_is_made_of():
    said = re.search(r"^IN_IMAGE := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT.replace("${LOCK}", " ".join(LOCKS)), re.M)
    made_of = {"Dockerfile", ".dockerignore", *" ".join(copied).split()}
    assert set(said.replace("\\", " ").split()) == made_of


def test_a_new_commit_with_the_same_code_makes_no_new_layers():
    assert TEXT.rindex("\nCOPY ") < TEXT.index("\nARG COMMIT")


@pytest.fixture
def repository(tmp_path):
    """A function that runs `make image` in a small repository, with a container engine that notes its arguments."""
    folder = tmp_path / "repository"
    (folder / "components").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "components" / "a.py").write_text("")
    (folder / "mlflow").mkdir()
    shutil.copy(ROOT / "mlflow" / "requirements.lock", folder / "mlflow")
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    engine = tmp_path / "engine"
    engine.write_text(
        "#!/bin/sh\n"
        'test "$1" = info || echo "$@"\n'
        # as an engine does, it reads the secrets while it builds
        'for word in "$@"; do case "$word" in id=packages,src=*) cp "${word#*src=}" "$0.secret";; esac; done\n'
    )
    engine.chmod(0o755)

    def make(*settings, path=None, target="image", **more):
        command = ["make", target, *(settings or [f"ENGINE={engine}"])]
        # no settings of this machine
        nothing = {"PIP_CONFIG_FILE": os.devnull}
        environment = {"PATH": path or "/usr/bin:/bin", "HOME": str(tmp_path), **nothing, **more}
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)

    make.secret = tmp_path / "engine.secret"
    make.folder, make.engine = folder, f"ENGINE={engine}"
    make.commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    return make


def test_make_image_names_it_by_the_commit(repository):
    done = repository()
    assert done.returncode == 0, done.stderr
    built, name = done.stdout.splitlines()
    assert name == f"contrastive-pipeline:{repository.commit[:12]}"
    assert built.startswith("build --platform linux/amd64 --build-arg LOCK=requirements-cpu.lock")
    assert f"--build-arg COMMIT={repository.commit} " in built
    assert re.search(r"--build-arg CREATED=\d{4}-\d\d-\d\dT\S+ ", built)
    assert built.endswith(f"--tag {name} .")


def test_make_image_hands_on_index_proxy_and_certificates(repository, tmp_path):
    assert "--secret" not in repository().stdout and not repository.secret.exists()
    certificates = tmp_path / "ca.pem"
    certificates.write_text("trusted")
    index = "https://me:pass&word@packages.example.org/simple"
    done = repository(
        PIP_INDEX_URL=index,
        SSL_CERT_FILE=str(certificates),
        HTTPS_PROXY="http://me:secret@proxy:3128",
        no_proxy="a",
    )
    assert done.returncode == 0, done.stderr
    built = done.stdout.splitlines()[0]
    assert f"--secret id=certificates,src={certificates} " in built
    assert "--build-arg HTTPS_PROXY " in built and "--build-arg no_proxy " in built
    # neither in the list of processes nor in a layer
    assert "pass" not in built and "me:secret" not in built
    said = f'. {repository.secret}; echo "$PIP_INDEX_URL $UV_DEFAULT_INDEX $PIP_CERT $SSL_CERT_FILE"'
    told = subprocess.run(["/bin/sh", "-c", said], capture_output=True, text=True, check=True).stdout.split()
    assert told == [index, index, "/run/secrets/certificates", "/run/secrets/certificates"]
    # and it is gone from here afterwards
    place = re.search(r"id=packages,src=(\S+)", built)[1]
    assert not Path(place).exists()
    wrong = repository(SSL_CERT_FILE="/nowhere/ca.pem")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "error: /nowhere/ca.pem: no such file of certificates" in wrong.stderr


@pytest.mark.parametrize("target", ["image", "server-image"])
@pytest.mark.parametrize(
    ("name", "format"), [("podman", ["--format docker"]), ("buildah", ["--format docker"]), ("engine", [])]
)
def test_an_engine_of_another_format_is_told_to_keep_the_health_check(repository, tmp_path, name, format, target):
    if name != "engine":
        shutil.copy(tmp_path / "engine", tmp_path / name)
    done = repository(f"ENGINE={tmp_path / name}", target=target)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"--format \S+", done.stdout) == format


def test_both_images_check_their_health_and_keep_git_quiet():
    for text in (TEXT, SERVER):
        assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
        # there is no git in them, about which MLflow's library for it would write a page
        assert re.search(r"\bGIT_PYTHON_REFRESH=quiet\b", text)


def test_each_install_takes_the_secrets():
    runs = [run for text in (TEXT, SERVER) for run in text.split("\nRUN ")[1:]]
    installs = [run for run in runs if "pip install" in run or "sh install.sh" in run]
    assert len(installs) == 4
    for install in installs:
        assert install.startswith("--mount=type=secret,id=packages --mount=type=secret,id=certificates ")
        assert ". /run/secrets/packages" in install


def test_make_server_image_tags_it_with_the_version_and_hands_the_index_on(repository):
    plain = repository(target="server-image")
    version = pins("mlflow/requirements.lock")["mlflow"].pop()
    built, name = plain.stdout.splitlines()
    assert name == f"mlflow-server:{version}" and built.endswith(f"--tag {name} mlflow")
    assert "--secret" not in built and f"COMMIT={repository.commit}" in built
    done = repository(
        repository.engine,
        "IMAGE=r.example.org/m",
        target="server-image",
        PIP_INDEX_URL="https://packages.example.org/",
    )
    built, name = done.stdout.splitlines()
    assert name == f"r.example.org/m:{version}" and "--secret id=packages,src=" in built
    assert "packages.example.org" in repository.secret.read_text()


def test_make_image_for_cards_under_another_name(repository):
    done = repository(repository.engine, "GPU=1", "IMAGE=registry.example.org/team/moths", "BASE=python:3.11-slim")
    built, name = done.stdout.splitlines()
    assert name == f"registry.example.org/team/moths:{repository.commit[:12]}-gpu"
    assert "LOCK=requirements-gpu.lock" in built
    assert "BASE=python:3.11-slim" in built


def test_make_image_refuses_what_is_not_committed_unless_it_is_named_so(repository):
    (repository.folder / "components" / "a.py").write_text("changed")
    done = repository()
    assert done.returncode == 2
    assert "error: not committed" in done.stderr
    assert " M components/a.py" in done.stderr
    named = repository(repository.engine, "TAG=trial")
    assert named.stdout.splitlines()[-1] == "contrastive-pipeline:trial"
    assert f"COMMIT={repository.commit}-dirty" in named.stdout


def test_make_image_says_what_is_missing_where_there_is_no_engine(repository, tmp_path):
    none = repository("ENGINE=")
    assert (none.returncode, none.stdout) == (2, "")
    assert "error: no container engine: install docker or podman" in none.stderr
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert f"error: {broken} is here but can't be used" in repository(f"ENGINE={broken}").stderr


def test_a_database_where_there_can_be_none_is_refused_at_once(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/new/mlflow.db")
    with pytest.raises(UserError, match=r"mlflow.db: \S+/file can't be written; set it to a server, or to a file"):
        connect()


def test_health_tells_what_is_whole_and_what_is_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GIT_COMMIT", "abc")
    monkeypatch.chdir(tmp_path)
    main(["health"])
    assert re.fullmatch(r"ok: 10 steps, \d+ options, commit abc\n", capsys.readouterr().out)
    with monkeypatch.context() as patch:
        patch.setenv("HOME", "/proc/nowhere")
        with pytest.raises(UserError, match=r"^/proc/nowhere: can't be written: .*; mount a volume there"):
            main(["health"])
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "components.probe", None)
        with pytest.raises(UserError, match=r"^components.probe: is not there; install it anew"):
            main(["health"])
