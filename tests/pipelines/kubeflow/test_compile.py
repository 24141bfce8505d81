"""The pipeline as compiled for a cluster: its graph, its settings, and what a wrong setting answers."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from components.shared.errors import UserError
from components.shared.params.composing import compose_params, options
from components.shared.steps import STEPS, TASKS
from pipelines.__main__ import main
from pipelines.kubeflow.cluster import compose_cluster
from pipelines.kubeflow.pipeline import compile_pipeline
from tests.helpers import kubeflow_pods as pods
from tests.helpers.kubernetes_types import check
from tests.helpers.repository import ROOT

COMMIT = "0123456789ab"
SEEDS = (0, 1, 7)
GATHERED = ("probe", "baseline", "finetune")


def replicates(*names):
    return {f"{name}-{seed}" for name in names for seed in SEEDS}


EACH = ("pretrain", *GATHERED)
# task → the row of the table of steps that it is made from
ROWS = {name: row for name, row in TASKS.items() if name not in (*EACH, "gather", "look")}
ROWS |= {f"{name}-{seed}": STEPS[name] for name in EACH for seed in SEEDS}
ROWS |= {f"gather-{name}": TASKS["gather"] for name in GATHERED}
ON_GPU = {"search", *replicates("pretrain", "baseline", "finetune")}
# every setting that there is
FULL = [
    "cluster=spot",
    "cluster.image=registry.example.org:5000/team/contrastive",
    "cluster.image_pull_policy=Always",
    "cluster.image_pull_secrets=[registry-login]",
    "cluster.gpu.count=4",
    "cluster.gpu.image=registry.example.org:5000/team/contrastive-cuda:13",
    "cluster.gpu.node_selector={nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}",
    "cluster.gpu.shared_memory=32Gi",
    "cluster.node_selector={pool: batch}",
    "cluster.tolerations=[{key: spot, value: 'true', effect: NoExecute, seconds: 60}]",
    "cluster.data={claim: images, path: /data, sub_path: birds}",
    "cluster.resources.ingest={cpu: 3, memory: 6Gi}",
    "cluster.signing={secret: signing-key, config_map: verifying-key}",
    "cluster.env={KERAS_BACKEND: jax}",
    "cluster.page=https://kubeflow.example.org/pipeline",
]
VARIANTS = {"default": [], "cpu": ["cluster=cpu"], "full": FULL}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Variant → pipeline spec and platform spec."""
    folder = tmp_path_factory.mktemp("compiled")
    found = {}
    for name, overrides in VARIANTS.items():
        path = folder / f"{name}.yaml"
        compile_pipeline(SEEDS, compose_cluster(overrides), path, ["runtime.epochs=20"], "", COMMIT)
        found[name] = (path, *pods.read(path))
    return found


def test_the_compiled_pipeline_is_the_golden_one(compiled):
    golden = Path(__file__).with_name("pipeline.golden.yaml")
    text = yaml.safe_dump(pods.summary(*compiled["full"][1:]), sort_keys=False, width=1000, allow_unicode=True)
    if os.environ.get("RENEW_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), f"if the change is meant: RENEW_GOLDEN=1 pytest {Path(__file__).name}"


@pytest.mark.parametrize("variant", ["default", "cpu"])
def test_settings_of_a_cluster_change_pods_retries_and_the_runs_limit_and_nothing_else(compiled, variant):
    one, other = (pods.summary(*compiled[name][1:]) for name in (variant, "full"))
    for task in (*one["tasks"].values(), *other["tasks"].values()):
        task.pop("retryPolicy", None)
        task["after"] = [name for name in task["after"] if name != "pull"]
    for found in (one, other):
        for part in ("tasks", "outputs", "pods"):
            found[part].pop("pull", None)
    assert {key for key in one if one[key] != other[key]} == {"run", "each pod", "pods"}


def test_a_container_runs_its_function_and_installs_nothing(compiled):
    for task, container in pods.containers(compiled["default"][1]).items():
        assert container["args"] == ["--executor_input", "{{$}}", "--function_to_execute", ROWS[task].name]
        assert "pip" not in " ".join(container["command"]).split()


@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes_takes_every_pod(compiled, variant):
    _, pipeline, platform = compiled[variant]
    made = dict(pods.pods(pipeline, platform))
    assert set(made) == set(ROWS) - ({"pull"} if variant == "cpu" else set())
    for pod in made.values():
        check(pod)


def test_a_namespace_that_takes_no_root_takes_every_pod(compiled):
    for step, made in pods.pods(*compiled["default"][1:]):
        (container,) = made["spec"]["containers"]
        assert container["securityContext"] == {"runAsNonRoot": True}, step
    # the kubelet can't tell whether a user with a name is root
    user = re.findall(r"^USER (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    assert re.fullmatch(r"[1-9]\d*:0", user)


def pod(compiled, variant, step):
    return dict(pods.pods(*compiled[variant][1:]))[step]


def test_only_the_steps_that_train_get_gpus_and_the_image_with_cuda(compiled):
    for variant, count in (("default", 1), ("full", 4)):
        for step, made in pods.pods(*compiled[variant][1:]):
            (container,) = made["spec"]["containers"]
            gpus = container["resources"]["limits"].get("nvidia.com/gpu")
            assert gpus == (count if step in ON_GPU else None), step
            shm = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
            assert bool(shm) == (step in ON_GPU)
    assert (
        pod(compiled, "default", "baseline-0")["spec"]["containers"][0]["image"]
        == f"contrastive-pipeline:{COMMIT}-gpu"
    )
    assert pod(compiled, "default", "probe-0")["spec"]["containers"][0]["image"] == f"contrastive-pipeline:{COMMIT}"
    assert pod(compiled, "full", "baseline-7")["spec"]["containers"][0]["image"].endswith("contrastive-cuda:13")


def test_the_image_with_cuda_is_pulled_in_minutes_before_a_gpu_is_asked_for(compiled):
    for variant in ("default", "full"):
        spec, training = (pod(compiled, variant, step)["spec"] for step in ("pull", "pretrain-0"))
        (container,) = spec["containers"]
        assert container["image"] == training["containers"][0]["image"]
        assert container["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
        assert spec["activeDeadlineSeconds"] == 1800
        assert "nvidia.com/gpu.product" not in spec["nodeSelector"]
        found = pods.steps(compiled[variant][1])
        assert {name for name, task in found.items() if "pull" in task.get("dependentTasks", [])} == ON_GPU
        # it waits for nothing itself
        assert "dependentTasks" not in found["pull"]


def test_what_needs_no_image_of_its_own_is_not_pulled(compiled, tmp_path):
    assert "pull" not in pods.steps(compiled["cpu"][1])
    path = tmp_path / "pipeline.yaml"
    compile_pipeline([0], compose_cluster(["cluster.image=a:1", "cluster.gpu.image=a:1"]), path, [], "", COMMIT)
    assert "pull" not in pods.steps(pods.read(path)[0])


@pytest.mark.parametrize(
    ("overrides", "backend"),
    [
        ([], None),
        (["cluster.gpu.count=2"], "jax"),
        (["cluster.gpu.count=2", "cluster.env={KERAS_BACKEND: tensorflow}"], "tensorflow"),
    ],
)
def test_several_gpus_are_trained_on_with_the_backend_that_can(tmp_path, overrides, backend):
    path = tmp_path / "pipeline.yaml"
    compile_pipeline([0, 1, 7], compose_cluster(overrides), path, [], "", COMMIT)
    found = {}
    for step, made in pods.pods(*pods.read(path)):
        env = {each["name"]: each.get("value") for each in made["spec"]["containers"][0]["env"]}
        found[step] = env.get("KERAS_BACKEND")
    assert {found[step] for step in ON_GPU} == {backend}
    assert found["probe-0"] == (None if backend == "jax" else backend)


def test_without_gpus_nothing_asks_for_one(compiled):
    text = compiled["cpu"][0].read_text()
    assert "nvidia" not in text and "/dev/shm" not in text and "-gpu" not in text


def test_every_setting_reaches_the_pods(compiled):
    spec = pod(compiled, "full", "pretrain-0")["spec"]
    (container,) = spec["containers"]
    assert spec["nodeSelector"] == {"pool": "batch", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert [each["key"] for each in spec["tolerations"]] == ["spot", "nvidia.com/gpu"]
    assert spec["tolerations"][0] == {
        "key": "spot",
        "operator": "Equal",
        "value": "true",
        "effect": "NoExecute",
        "tolerationSeconds": 60,
    }
    assert spec["imagePullSecrets"] == [{"name": "registry-login"}]
    assert container["imagePullPolicy"] == "Always"
    assert spec["activeDeadlineSeconds"] == 259200
    assert {"name": "contrastive-cache", "mountPath": "/cache"} in container["volumeMounts"]
    env = {each["name"]: each.get("value") or each["valueFrom"] for each in container["env"]}
    assert env["KERAS_BACKEND"] == "jax" and env["PIPELINE_CACHE"] == "/cache"
    assert env["PIPELINE_CACHE_DAYS"] == "30"
    assert env["MLFLOW_TRACKING_URI"] == {
        "configMapKeyRef": {"name": "mlflow", "key": "tracking_uri", "optional": False}
    }
    assert env["AWS_SECRET_ACCESS_KEY"]["secretKeyRef"]["name"] == "mlflow-artifacts"
    ingest = pod(compiled, "full", "ingest")["spec"]["containers"][0]
    assert ingest["resources"] == {
        "requests": {"cpu": "3", "memory": "6Gi"},
        "limits": {"cpu": "4", "memory": "8Gi"},
    }
    assert {"name": "images", "mountPath": "/data", "subPath": "birds"} in ingest["volumeMounts"]
    # compose looks at the images too, to name their state
    assert ingest["volumeMounts"] == pod(compiled, "full", "compose")["spec"]["containers"][0]["volumeMounts"]
    record = pod(compiled, "full", "record")["spec"]["containers"][0]
    assert {"name": "PIPELINE_PAGE", "value": "https://kubeflow.example.org/pipeline"} in record["env"]


def test_the_private_key_is_given_to_register_alone(compiled):
    private, public = {"secretName": "signing-key"}, {"name": "verifying-key"}
    named = {
        "secret": ("CONTRASTIVE_SIGNING_KEY", "/keys/private/private.pem"),
        "configMap": ("CONTRASTIVE_PUBLIC_KEY", "/keys/public/public.pem"),
    }
    holders = {}
    for name in pods.steps(compiled["full"][1]):
        spec = pod(compiled, "full", name)["spec"]
        (container,) = spec["containers"]
        volumes = {each["name"]: each for each in spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes.get(mount["name"], {})
            for kind, what in (("secret", private), ("configMap", public)):
                if volume.get(kind, {}).items() >= what.items():
                    holders.setdefault(name, {})[kind] = mount["mountPath"]
        env = {each["name"]: each.get("value") for each in container["env"]}
        mine = [named[kind] for kind in named if kind in holders.get(name, {})]
        assert [(key, value) for key, value in env.items() if key.startswith("CONTRASTIVE_")] == mine
    assert holders == {
        "evaluate": {"configMap": "/keys/public"},
        "register": {"secret": "/keys/private", "configMap": "/keys/public"},
    }
    assert "CONTRASTIVE_" not in compiled["default"][0].read_text()


def test_the_run_ends_in_time_and_is_cleared_away(compiled):
    config = compiled["default"][2]["platforms"]["kubernetes"]["pipelineConfig"]
    assert config == {
        "activeDeadlineSeconds": 345600,
        "resourceTtlOnSuccess": 86400,
        "resourceTtlOnFailure": 604800,
    }


@pytest.mark.parametrize("name", ["default", "cpu", "spot"])
def test_no_retry_is_cut_off_by_the_end_of_the_run(name):
    cluster = compose_cluster([f"cluster={name}"])
    for task, row in TASKS.items():
        count = cluster.retries_of(task)
        assert count == (3 if row.network else 5 if row.trains and name == "spot" else 0)
        assert cluster.retries.window(count, cluster.timeouts[task]) <= cluster.timeouts["run"], task


def test_a_run_may_end_before_a_step_that_is_tried_once_or_has_no_limit_of_its_own():
    once = compose_cluster(["cluster.timeouts.run=60000"])
    assert once.timeouts["run"] < once.timeouts["pretrain"]
    compose_cluster(["cluster.timeouts.run=57809", "cluster.timeouts.ingest=null"])


def test_what_touches_a_network_is_tried_again_later_and_later(compiled):
    def retried(variant):
        return {
            name: task["retryPolicy"]
            for name, task in pods.steps(compiled[variant][1]).items()
            if "retryPolicy" in task
        }

    network = {"ingest", "champion", "evaluate", "register", "record"}
    assert set(retried("default")) == network
    assert retried("default")["register"] == {
        "maxRetryCount": 3,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        # four tries of an hour, and waits of 30, 60 and 120 seconds
        "backoffMaxDuration": "14610s",
    }
    assert set(retried("full")) == network | ON_GPU | replicates("probe")
    assert retried("full")["pretrain-1"]["maxRetryCount"] == 5


def test_paths_to_secrets_and_names_like_theirs_are_no_secrets():
    env = {"GOOGLE_APPLICATION_CREDENTIALS": "/secrets/key.json", "TOKENIZERS_PARALLELISM": "0"}
    given = ", ".join(f"{name}: {value}" for name, value in env.items())
    assert compose_cluster([f"cluster.env={{{given}}}"]).env.items() >= env.items()


@pytest.mark.parametrize("variant", ["default", "full"])
def test_each_try_may_take_its_whole_time_however_late_it_is(compiled, variant):
    for name, task in pods.steps(compiled[variant][1]).items():
        if (policy := task.get("retryPolicy")) is None:
            continue
        tries, first = policy["maxRetryCount"] + 1, int(policy["backoffDuration"].removesuffix("s"))
        waits = sum(first * policy["backoffFactor"] ** place for place in range(tries - 1))
        longest = pod(compiled, variant, name)["spec"].get("activeDeadlineSeconds", 0)
        window = int(policy["backoffMaxDuration"].removesuffix("s"))
        assert window >= tries * longest + waits, name


def tasks(compiled, within):
    pipeline = compiled["default"][1]
    return pipeline["components"][within]["dag"]["tasks"]


def test_replicates_run_side_by_side_and_each_reads_its_own_encoder(compiled):
    body = tasks(compiled, "comp-exit-handler-1")
    after = {name: set(task.get("dependentTasks", [])) for name, task in body.items()}
    for seed in SEEDS:
        assert after[f"pretrain-{seed}"] == {"compose", "ingest", "validate", "pull"}
        assert after[f"baseline-{seed}"] == {"compose", "ingest", "search", "pull"}
        assert after[f"probe-{seed}"] == {"compose", "ingest", "search", f"pretrain-{seed}"}
        assert after[f"finetune-{seed}"] == {"compose", "ingest", "search", f"pretrain-{seed}", "pull"}
    # the search is about the first replicate
    assert after["search"] == {"compose", "ingest", "pretrain-0", "pull"}
    for step in GATHERED:
        assert after[f"gather-{step}"] == {"compose", "ingest", *replicates(step)}
    gathered = {f"gather-{step}" for step in GATHERED}
    # who is champion is asked for when the trainings have ended
    assert after["champion"] == {"compose", *gathered}
    assert after["evaluate"] == {"compose", "ingest", "validate", "search", "champion", *gathered}


def test_a_replicate_is_told_its_seed_and_nothing_of_the_others(compiled):
    body = tasks(compiled, "comp-exit-handler-1")
    for step in EACH:
        for seed in SEEDS:
            given = body[f"{step}-{seed}"]["inputs"]["parameters"]
            assert given["seed"]["runtimeValue"]["constant"] == seed
            assert given["settings"]["taskOutputParameter"]["outputParameterKey"] == step
    assert body["search"]["inputs"]["parameters"]["seed"]["runtimeValue"]["constant"] == SEEDS[0]
    assert body["compose"]["inputs"]["parameters"]["replicates"]["runtimeValue"]["constant"] == "[0, 1, 7]"


def test_what_gathers_has_an_input_for_each_replicate(compiled):
    body = tasks(compiled, "comp-exit-handler-1")
    for step in GATHERED:
        read = body[f"gather-{step}"]["inputs"]["artifacts"]
        from_ = {name: source["taskOutputArtifact"] for name, source in read.items()}
        assert from_.pop("dataset")["producerTask"] == "ingest"
        assert from_ == {
            f"replicate_{seed}": {"producerTask": f"{step}-{seed}", "outputArtifactKey": step} for seed in SEEDS
        }


def test_more_replicates_leave_the_tasks_of_the_others_as_they_were(compiled, tmp_path):
    path = tmp_path / "pipeline.yaml"
    compile_pipeline((*SEEDS, 8), compose_cluster([]), path, ["runtime.epochs=20"], "", COMMIT)
    more, _ = pods.read(path)
    few = compiled["default"][1]
    added = {f"{step}-8" for step in EACH}
    assert set(pods.steps(more)) == set(pods.steps(few)) | added
    changed = {name for name, task in pods.steps(few).items() if task != pods.steps(more)[name]}
    # what reads them all, and compose, which is never cached
    assert changed == {"compose", *(f"gather-{step}" for step in GATHERED)}
    for name, container in pods.containers(few).items():
        assert name.startswith("gather-") or container == pods.containers(more)[name]


def test_registration_and_refusal_are_two_branches_of_one_answer(compiled):
    body = tasks(compiled, "comp-exit-handler-1")
    (branches,) = [task for name, task in body.items() if name.startswith("condition-branches")]
    found = tasks(compiled, branches["componentRef"]["name"])
    by_title = {task["taskInfo"]["name"]: task for task in found.values()}
    blessed, refused = by_title["Blessed"], by_title["Refused"]
    condition = blessed["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--evaluate-Output'] == 'blessed'"
    assert refused["triggerPolicy"]["condition"] == f"!({condition})"
    assert list(tasks(compiled, blessed["componentRef"]["name"])) == ["register"]
    assert list(tasks(compiled, refused["componentRef"]["name"])) == ["refuse"]


def test_on_change_everything_but_the_look_waits_for_a_change(tmp_path):
    path = tmp_path / "pipeline.yaml"
    compile_pipeline(SEEDS, compose_cluster([]), path, [], "", COMMIT, on_change=True)
    pipeline = pods.read(path)[0]
    groups = [component["dag"]["tasks"] for component in pipeline["components"].values() if "dag" in component]
    # the two branches of the verdict stand within the group of the other steps
    [steps] = [group for group in groups if "pretrain-0" in group]
    assert set(ROWS) - set(steps) == {"compose", "record", "register", "refuse"}
    [around] = [group for group in groups if "look" in group]
    [waiting] = [task for name, task in around.items() if name not in ("compose", "look")]
    assert waiting["triggerPolicy"]["condition"].endswith("['pipelinechannel--look-Output'] == 'changed'")
    assert waiting["dependentTasks"] == ["compose", "look"]
    executors = pipeline["deploymentSpec"]["executors"]
    for name in ("compose", "look", "record"):
        assert "accelerator" not in executors[f"exec-{name}"]["container"]["resources"]
    assert not around["look"]["cachingOptions"].get("enableCache")


def test_the_end_is_recorded_whatever_happens(compiled):
    record = compiled["default"][1]["root"]["dag"]["tasks"]["record"]
    assert record["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert "taskFinalStatus" in record["inputs"]["parameters"]["status"]


def test_what_must_not_be_replayed_is_not_cached(compiled):
    found = pods.steps(compiled["default"][1])
    cached = {name for name, task in found.items() if task["cachingOptions"].get("enableCache")}
    assert set(found) - cached == {name for name, row in ROWS.items() if not row.cached}


def test_nothing_that_differs_from_run_to_run_is_in_the_key_of_the_cache(compiled):
    for step, container in pods.containers(compiled["default"][1]).items():
        text = str(container.get("env", [])) + "".join(container["args"])
        assert "$.pipeline" not in text and "PIPELINE_RUN_ID" not in text, step
    run_id = {
        "name": "PIPELINE_RUN_ID",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['pipeline/runid']"}},
    }
    assert run_id in pod(compiled, "default", "evaluate")["spec"]["containers"][0]["env"]


def test_everything_has_a_name_and_a_description_on_the_page(compiled):
    _, pipeline, _ = compiled["default"]
    titles = {name: task["taskInfo"]["name"] for name, task in pods.steps(pipeline).items()}
    assert titles == {
        **{name: row.title for name, row in ROWS.items()},
        **{f"{step}-{seed}": f"{STEPS[step].title}, seed {seed}" for step in EACH for seed in SEEDS},
        **{f"gather-{step}": f"Gather the replicates, {step}" for step in GATHERED},
    }
    for step in ROWS:
        component = pipeline["components"][f"comp-{step}"]
        for side in ("inputDefinitions", "outputDefinitions"):
            for kind, found in component.get(side, {}).items():
                for name, about in found.items():
                    assert about.get("description"), f"{step}: {kind} {name}"
        about = pod(compiled, "default", step)["metadata"]["annotations"]["kubernetes.io/description"]
        assert about.endswith(".")
    kinds = {
        artifact["artifactType"]["schemaTitle"]
        for component in pipeline["components"].values()
        for artifact in component.get("outputDefinitions", {}).get("artifacts", {}).values()
    }
    wanted = ("Dataset", "Model", "Metrics", "ClassificationMetrics", "HTML", "Markdown", "Artifact")
    assert kinds == {f"system.{kind}" for kind in wanted}


def test_options_are_the_default_of_one_parameter(compiled):
    parameters = compiled["default"][1]["root"]["inputDefinitions"]["parameters"]
    assert parameters["overrides"]["defaultValue"] == ["runtime.epochs=20"]
    assert parameters["overrides"]["parameterType"] == "LIST"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cluster=gpus", "cluster=gpus: must be one of cpu, default, spot"),
        (
            "cluster.gpu.coun=2",
            "cluster.gpu.coun: no such parameter (did you mean cluster.gpu.count?); see conf/ for the names",
        ),
        ("cluster.gpu.count=-1", "cluster.gpu.count = -1: must be greater than or equal to 0"),
        (
            "cluster.resources.pretran={cpu: 8}",
            "cluster.resources.pretran = \"pretran\": must be 'compose', 'look', 'pull', 'ingest', 'validate', "
            "'pretrain', 'search', 'probe', 'baseline', 'finetune', 'champion', 'evaluate', 'register', 'gather', "
            "'refuse' or 'record' (did you mean pretrain?)",
        ),
        (
            "cluster.resources.probe.memory=8GB",
            'cluster.resources.probe.memory = "8GB": must match pattern '
            "'^[0-9]+(E|Ei|P|Pi|T|Ti|G|Gi|M|Mi|K|Ki)?$'",
        ),
        ("cluster.data.path=data", "cluster.data.path = \"data\": must match pattern '^/'"),
        (
            "cluster.tolerations=[{operator: Equal}]",
            "cluster.tolerations.0.key: missing; operator Equal needs one, or take Exists for every taint",
        ),
        (
            "cluster.tolerations=[{key: a, operator: Exists, value: b}]",
            "cluster.tolerations.0.value = 'b': operator Exists takes none; leave it out, or take Equal",
        ),
        (
            "cluster.secrets=[{name: mlflow, keys: {token: 1ST}}]",
            "cluster.secrets.0.keys.token = \"1ST\": must match pattern '^[A-Za-z_][A-Za-z0-9_]*$'",
        ),
        (
            "cluster.tracking_patience=3600",
            "cluster.tracking_patience = 3600: look is ended after timeouts.look = 3600; raise that, or wait less",
        ),
        (
            "cluster.retries.training=1",
            "cluster.timeouts.run = 345600: ends the run before pretrain has had all its tries, 518430 s "
            "(timeouts.pretrain = 259200, retries.training = 1); raise it, or lower one of these",
        ),
        (
            "cluster.timeouts.run=57809",
            "cluster.timeouts.run = 57809: ends the run before ingest has had all its tries, 57810 s "
            "(timeouts.ingest = 14400, retries.network = 3); raise it, or lower one of these",
        ),
        (
            "cluster.timeouts.probe=0",
            "cluster.timeouts.probe = 0: must be greater than or equal to 1",
        ),
        (
            "cluster.signing.secret=a",
            "cluster.signing.secret = a: who signs needs the public key too; set config_map to one with public.pem",
        ),
        (
            "cluster.cache={claim: b, path: /data}",
            "cluster.data.path = cache.path = /data: mount them at different places",
        ),
        (
            "cluster.cache={claim: b, keep_days: 4}",
            "cluster.cache.keep_days = 4: a run may take 345600 s (timeouts.run), and would find what it has "
            "trained so far removed; set it to 5 or more",
        ),
        (
            "cluster.resources.probe={cpu: 4, cpu_limit: 2}",
            "cluster.resources.probe.cpu_limit = 2: below cpu = 4, which no pod gets; raise it",
        ),
        (
            "cluster.resources.probe={memory: 8Gi, memory_limit: 8G}",
            "cluster.resources.probe.memory_limit = 8G: below memory = 8Gi, which no pod gets; raise it",
        ),
        (
            "cluster.gpu.shared_memory=64Gi",
            "cluster.gpu.shared_memory = 64Gi: is part of resources.pretrain.memory_limit = 64Gi; lower it",
        ),
        *(
            (
                f"cluster.cache={{claim: b, path: {path}}}",
                f"cluster.cache.path = {path}: hides what the image or Kubeflow has there; mount it elsewhere, "
                "such as /data",
            )
            for path in ("/", "//", "/app", "/app/conf", "/tmp/", "/gcs")
        ),
        *(
            (
                f"cluster.env={{{name}: {value}}}",
                f"cluster.env.{name}: everybody who may see a pod reads it there; put it into cluster.secrets",
            )
            for name, value in (
                ("MLFLOW_TRACKING_PASSWORD", "abc"),
                ("HF_TOKEN", "hf_abc"),
                ("HTTPS_PROXY", "http://user:word@proxy"),
            )
        ),
        ("cluster.gpu", "'cluster.gpu': write name=value, such as data=sample or runtime.epochs=20"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(override, message):
    with pytest.raises(UserError) as error:
        compose_cluster(["cluster.data.claim=a", override])
    assert str(error.value) == message


def test_an_image_needs_a_tag_or_a_commit():
    cluster = compose_cluster(["cluster.image=example.org:5000/a"])
    assert cluster.image_for("ingest", COMMIT) == f"example.org:5000/a:{COMMIT}"
    with pytest.raises(UserError, match=r"^cluster\.image = example\.org:5000/a: has no tag"):
        cluster.image_for("ingest", None)
    pinned = compose_cluster(["cluster.image=a@sha256:00"])
    assert pinned.image_for("ingest", None) == "a@sha256:00"
    with pytest.raises(UserError, match=r"set cluster\.gpu\.image"):
        pinned.image_for("pretrain", None)


def test_a_setting_of_the_cluster_is_no_option_of_a_run():
    assert "cluster" not in options()
    with pytest.raises(UserError, match=r"^cluster=cpu: says where a pipeline runs"):
        compose_params(["cluster=cpu"])


def test_the_command_compiles(in_tmp, capsys):
    main(["kubeflow", "compile", "cluster=cpu", "cluster.image=contrastive:1", "gate=strict", "runtime.epochs=3"])
    assert capsys.readouterr().out == "pipeline.yaml: image contrastive:1, no GPU, gate=strict runtime.epochs=3\n"
    pipeline, _ = pods.read(in_tmp / "pipeline.yaml")
    overrides = pipeline["root"]["inputDefinitions"]["parameters"]["overrides"]
    assert overrides["defaultValue"] == ["gate=strict", "runtime.epochs=3"]
    assert [path.name for path in in_tmp.iterdir()] == ["pipeline.yaml"]


def test_the_command_compiles_for_the_replicates_of_the_options(in_tmp):
    main(["kubeflow", "compile", "cluster.image=a:1", "runtime.replicates=[3,5]"])
    found = set(pods.steps(pods.read(in_tmp / "pipeline.yaml")[0]))
    assert {name for name in found if name.startswith("pretrain-")} == {"pretrain-3", "pretrain-5"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runtime.epochs=x"], "runtime.epochs"),
        (["cluster.gpu.count=x"], "cluster.gpu.count"),
        (["--out", "no/pipeline.yaml"], "no/pipeline.yaml: can't be written"),
        (["--out", "pipeline.json"], "--out pipeline.json: must end in .yaml"),
    ],
)
def test_the_command_answers_a_mistake_with_one_line_and_writes_nothing(in_tmp, arguments, message):
    with pytest.raises(UserError) as error:
        main(["kubeflow", "compile", "cluster.image=a:1", *arguments])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(in_tmp.iterdir()) == []
