"""The image: its Dockerfile, what a build would get to see, `make image`. .ci/image builds it and tries it."""

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
from tests.helpers.dockerfile import expand, sent, stages
from tests.helpers.repository import ROOT, tracked_files

TEXT = (ROOT / "Dockerfile").read_text()
IGNORE = (ROOT / ".dockerignore").read_text()
FILES = [str(path.relative_to(ROOT)) for path in tracked_files()]
LOCKS = ("requirements-cpu.lock", "requirements-gpu.lock")


def pins(lock):
    """Name → versions of a lock; an extra is not part of the name."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", (ROOT / lock).read_text(), re.M
    ):
        found.setdefault(name, set()).add(version)
    return found


def copied(lock):
    """Every source of a COPY from the context."""
    return [
        expand(word, {"LOCK": lock})
        for stage in stages(TEXT)
        for instruction in stage.named("COPY")
        if "from" not in instruction.flags()
        for word in instruction.words()[:-1]
    ]


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_copied_is_tracked_and_not_ignored(lock):
    context = sent(IGNORE, FILES)
    sources = copied(lock)
    assert lock in sources
    assert [
        name for name in sources if not any(file == name or file.startswith(f"{name}/") for file in context)
    ] == []


def test_a_build_sees_what_is_copied_and_nothing_else():
    there = [
        *FILES,
        ".git/config",
        ".env",
        "data/a.png",
        "mlflow.db",
        "mlartifacts/1/x",
        "components/.env",
        ".venv/x",
    ]
    there += [
        "components/__pycache__/a.pyc",
        "models/methods/__pycache__/b.pyc",
        "conf/.cache/x",
        "old-requirements.lock",
    ]
    sources = {name for lock in LOCKS for name in copied(lock)}
    seen = sent(IGNORE, there)
    assert [name for name in seen if name not in FILES] == []
    assert [name for name in seen if not {name, name.split("/")[0]} & sources] == []
    assert {"components/shared/params/schema.py", "conf/config.yaml", "models/methods/simclr.py"} <= set(seen)


def test_what_the_code_opens_beside_itself_is_in_the_image():
    # found from the modules' own place, as components/shared/params/composing.py finds conf/
    assert {"conf", "components", "models", "pipelines", "params.yaml", "dvc.yaml"} <= set(copied(LOCKS[0]))


def test_the_last_stage_runs_nothing_as_root_and_takes_only_the_environment_and_the_code():
    last = stages(TEXT)[-1]
    assert [instruction.words() for instruction in last.named("COPY")] == [
        ["/opt/venv", "/opt/venv"],
        ["/app", "/app"],
    ]
    assert all(instruction.flags()["from"] in ("environment", "application") for instruction in last.named("COPY"))
    assert last.named("RUN") == []
    (user,) = last.named("USER")
    number, group = user.text.split(":")
    # by number, so that a cluster can see that it is not root; group 0 is what any user id of OpenShift has
    assert int(number) >= 1000
    assert group == "0"


def test_the_commands_exist():
    last = stages(TEXT)[-1]
    (health,), (default,) = last.named("HEALTHCHECK"), last.named("CMD")
    assert health.command() == ["contrastive", "health"]
    main(health.command()[1:])
    assert default.command()[0] == "contrastive"
    assert main(default.command()[1:]) == 0


def test_the_image_tells_its_commit_to_people_and_to_the_steps():
    last = stages(TEXT)[-1]
    labels = {key: value for instruction in last.named("LABEL") for key, value in instruction.pairs().items()}
    assert labels["org.opencontainers.image.revision"] == last.environment()["GIT_COMMIT"] == "${COMMIT}"
    assert labels["org.opencontainers.image.base.name"] == "${BASE}"
    (argument,) = (instruction for instruction in last.named("ARG") if instruction.text.startswith("COMMIT"))
    assert last.instructions.index(argument) > last.instructions.index(last.named("COPY")[-1])


def test_whatever_a_library_keeps_goes_where_it_can_be_written():
    variables = stages(TEXT)[-1].environment()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "KERAS_HOME"):
        assert variables[name] == "/tmp" or variables[name].startswith("/tmp/"), name
    assert variables["PYTHONDONTWRITEBYTECODE"] == "1"


def test_every_install_is_locked_and_nothing_is_fetched_besides():
    runs = " ".join(instruction.text for stage in stages(TEXT) for instruction in stage.named("RUN"))
    installs = re.findall(r"(?:uv )?pip install.*?(?=&&|$)", runs)
    assert len(installs) == 3
    assert all(
        "--require-hashes" in install and re.search(r" -r /build/(uv\.lock|sbom\.lock|\$\{LOCK\})", install)
        for install in installs
    )
    assert "--compile-bytecode" in installs[1]
    assert re.search(r"\b(curl|wget|apt-get|ADD)\b", runs) is None


def test_what_is_installed_is_listed_by_a_tool_that_stays_behind():
    runs = [run.line_to_run() for run in next(iter(stages(TEXT))).named("RUN")]
    # the last of its stage: nothing is installed or removed after it
    assert "cyclonedx-py environment" in runs[-1] and "-r /build/${LOCK}" in "".join(runs[:-1])
    assert "--output-file /opt/venv/sbom.cdx.json" in runs[-1]
    # the same image has the same list: no new layer
    assert "--output-reproducible" in runs[-1]
    tool, tested = pins("mlflow/sbom.lock"), pins("requirements.lock")
    assert "cyclonedx-bom" in tool and "cyclonedx-bom" not in tested
    assert {name: found for name, found in tool.items() if name in tested and found != tested[name]} == {}
    for lock in (*LOCKS, "mlflow/requirements.lock"):
        assert "cyclonedx-bom" not in pins(lock)
    # the server's image too, from its own folder
    server = (ROOT / "mlflow" / "Dockerfile").read_text()
    assert "sbom.lock" in next(iter(stages(server))).named("COPY")[0].words()
    assert "!sbom.lock" in (ROOT / "mlflow" / ".dockerignore").read_text().split()
    assert '"$(dirname "$lock")/sbom.lock"' in (ROOT / "mlflow" / "install.sh").read_text()


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
    (base,) = {expand(stage.base, {}) for stage in stages(TEXT) if ":" in stage.base}
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)[1]
    assert f"--python-version {version}" in (ROOT / "Makefile").read_text()
    assert version == f"{sys.version_info.major}.{sys.version_info.minor}" or sys.version_info[:2] == (3, 12)
    assert stages(TEXT, {"BASE": "other:1"})[0].base == "other:1"


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
    made_of = {"Dockerfile", ".dockerignore"}.union(*(copied(lock) for lock in LOCKS))
    assert set(said.replace("\\", " ").split()) == made_of


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


def test_each_install_takes_the_secrets_and_git_is_not_missed():
    server = (ROOT / "mlflow" / "Dockerfile").read_text()
    runs = [run for text in (TEXT, server) for stage in stages(text) for run in stage.named("RUN")]
    installs = [run for run in runs if "pip install" in run.text or "install.sh" in run.text]
    assert len(installs) == 4
    for install in installs:
        assert install.text.startswith("--mount=type=secret,id=packages --mount=type=secret,id=certificates ")
        assert ". /run/secrets/packages" in install.line_to_run()
    assert stages(TEXT)[-1].environment()["GIT_PYTHON_REFRESH"] == "quiet"


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
