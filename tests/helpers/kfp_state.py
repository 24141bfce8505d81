"""What a server of Kubeflow Pipelines 2 knows and does (v2beta1), behind the wire that `kfp_api` is."""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any
from urllib.parse import unquote

import yaml

from tests.helpers.kfp_workflow import Workflow, stamp
from tests.helpers.robfig_cron import RobfigCron

API = "/apis/v2beta1"
KINDS = ("pipelines", "pipeline_versions", "experiments", "runs", "recurring_runs")
CODES = {3: 400, 5: 404, 6: 409, 7: 403, 13: 500, 16: 401}


class RefusedError(Exception):
    """An error as the API tells it: a code of gRPC and a message."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


@dataclass
class Fault:
    """What goes wrong with requests that match.

    A status, or one of: slow, cut request, cut answer, page, redirect.
    """

    match: str
    what: int | str
    times: int = 1
    skip: int = 0


@dataclass
class KfpApi:
    """The server's memory, and what a test may set.

    Attributes:
        token: that requests must carry; None lets everyone in.
        multi_user: whether requests must name a namespace.
        forbidden: namespaces that the user may not see.
        outcomes: what becomes of the tasks of new and of retried runs, by name; see `Workflow`.
        logs: of the pods of tasks, by name of the task; the others' are gone.
        faults: taken in order, each as often as it says.
        calls: every request: method, path and status (0 for a cut connection).
    """

    url: str = ""
    token: str | None = None
    multi_user: bool = False
    forbidden: tuple[str, ...] = ()
    outcomes: dict[str, str] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    things: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    workflows: dict[str, Workflow] = field(default_factory=dict)
    made: int = 0

    def fail(self, match: str, what: int | str, times: int = 1, skip: int = 0) -> None:
        """Let requests whose "METHOD path" matches the expression go wrong, after `skip` that do not."""
        self.faults.append(Fault(match, what, times, skip))

    def fault(self, request: str) -> int | str | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, request):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault.what
        return None

    def all(self, kind: str) -> list[dict[str, Any]]:
        return list(self.things[kind].values())

    # what the API does, by method and path

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes, headers: Any) -> Any:
        parts = path.removeprefix(f"{API}/").split("/")
        match (method, *parts):
            case ("GET", "healthz"):
                return {"multi_user": self.multi_user, "pipeline_store": "database"}
            case ("POST", "pipelines", "upload_version"):
                return self._upload(query, body, headers)
            case ("POST", "runs", retried) if retried.endswith(":retry"):
                return self._retry(retried.removesuffix(":retry"))
            case ("GET", "pipelines", pipeline, "versions"):
                self._get("pipelines", pipeline)
                return self._list("pipeline_versions", query, lambda item: item["pipeline_id"] == pipeline)
            case ("GET", "pipelines", _, "versions", version):
                return self._get("pipeline_versions", version)
            case (_, "pipelines" | "experiments" | "runs" | "recurringruns" as kind, *rest):
                return self._resource(method, kind.replace("recurringruns", "recurring_runs"), rest, query, body)
        raise RefusedError(5, "Not Found")

    def _resource(self, method: str, kind: str, rest: list[str], query: dict[str, str], body: bytes) -> Any:
        match (method, *rest):
            case ("GET",):
                return self._listed(kind, query)
            case ("POST",):
                return self._create(kind, body)
            case ("GET", identity):
                return self._run(identity) if kind == "runs" else self._get(kind, identity)
            case ("DELETE", identity):
                self._get(kind, identity)
                del self.things[kind][identity]
                return {}
            case ("POST", action) if ":" in action:
                identity, verb = action.split(":")
                return self._act(kind, self._get(kind, identity), verb)
        raise RefusedError(5, "Not Found")

    def _act(self, kind: str, thing: dict[str, Any], verb: str) -> Any:
        if (kind, verb) in (("recurring_runs", "enable"), ("recurring_runs", "disable")):
            thing.update(mode=verb.upper(), status=f"{verb.upper()}D", updated_at=stamp(datetime.now(UTC)))
        elif (kind, verb) == ("runs", "terminate"):
            thing["state"] = "CANCELING"
        else:
            raise RefusedError(5, "Not Found")
        return {}

    def _retry(self, identity: str) -> Any:
        run = self._get("runs", identity)
        if run["state"] not in ("FAILED", "CANCELED"):
            raise RefusedError(3, "Only failed/error runs can be retried")
        run["state"] = "RUNNING"
        run.pop("finished_at", None)
        self.workflows[identity].retry(self.outcomes)
        return {}

    def log(self, path: str) -> str | None:
        """The log of a pod; None where the address is none of one."""
        found = re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path)
        if found is None:
            return None
        self._get("runs", found[1])
        for name, said in self.logs.items():
            if found[2] in self.workflows[found[1]].pods(name):
                return said
        raise RefusedError(3, "Failed to read logs")

    def _get(self, kind: str, identity: str) -> dict[str, Any]:
        found = self.things[kind].get(identity)
        if found is None:
            raise RefusedError(5, f"{kind[:-1]} {identity} not found.")
        return found

    def _listed(self, kind: str, query: dict[str, str]) -> dict[str, Any]:
        if kind == "runs" and query.get("experiment_id"):
            return self._list(kind, query, lambda item: item["experiment_id"] == query["experiment_id"])
        namespace = self._allowed(query.get("namespace", ""))
        return self._list(kind, query, lambda item: self._namespace(item) == namespace)

    def _list(self, kind: str, query: dict[str, str], belongs: Any) -> dict[str, Any]:
        items = [item for item in self.all(kind) if belongs(item) and _fits(item, query.get("filter", ""))]
        order = query.get("sort_by") or "created_at"
        if order not in ("created_at", "created_at desc"):
            raise RefusedError(3, f"Invalid sorting field: {order}")
        # in the order they were made, which seconds do not tell
        items = items[::-1] if order.endswith("desc") else items
        size = min(int(query.get("page_size") or 20), 200)
        start = _offset(query)
        key = "recurringRuns" if kind == "recurring_runs" else kind
        answer: dict[str, Any] = {key: items[start : start + size], "total_size": len(items)}
        if start + size < len(items):
            asked = [query.get("sort_by", ""), query.get("filter", "")]
            answer["next_page_token"] = base64.b64encode(json.dumps([start + size, *asked]).encode()).decode()
        return answer if items else {}

    def _create(self, kind: str, body: bytes) -> dict[str, Any]:
        wanted = json.loads(body)
        if not wanted.get("display_name"):
            raise RefusedError(3, f"Invalid input error: {kind} must have a display_name")
        add = {"runs": self._new_run, "recurring_runs": self._new_recurring}.get(kind, self._new_named)
        return add(kind, wanted)

    def _new_named(self, kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
        namespace = self._allowed(wanted.get("namespace", ""))
        if any(
            item["display_name"] == wanted["display_name"] and item["namespace"] == namespace
            for item in self.all(kind)
        ):
            raise RefusedError(6, f"Already exist error: the name {wanted['display_name']} already exist")
        state = {"storage_state": "AVAILABLE"} if kind == "experiments" else {"name": wanted["display_name"]}
        return self._add(kind, {**wanted, **state, "namespace": namespace})

    def _new_run(self, kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
        version, _ = self._checked_source(wanted)
        run = self._add(kind, {**wanted, "state": "PENDING", "storage_state": "AVAILABLE"})
        begun = datetime.fromisoformat(run["created_at"])
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        name = f"{spec['pipelineInfo']['name']}-{self.made:05}"
        self.workflows[run["run_id"]] = Workflow(run["run_id"], name, spec, dict(self.outcomes), begun)
        return run

    def _new_recurring(self, kind: str, wanted: dict[str, Any]) -> dict[str, Any]:
        _, namespace = self._checked_source(wanted)
        if not 1 <= int(wanted.get("max_concurrency", 0)) <= 10:
            raise RefusedError(3, "Max concurrency of a recurring run must be at least 1 and at most 10.")
        try:
            RobfigCron(wanted["trigger"]["cron_schedule"]["cron"])
        except ValueError as error:
            raise RefusedError(3, f"Schedule cron is not a supported format. Error: {error}") from None
        state = {"status": f"{wanted['mode']}D", "namespace": namespace}
        return self._add(kind, {**wanted, **state, "max_concurrency": str(wanted["max_concurrency"])})

    def _checked_source(self, wanted: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """The version that a run is of, with parameters that it has, in an experiment that is there."""
        experiment = self._get("experiments", wanted.get("experiment_id", ""))
        if experiment["storage_state"] == "ARCHIVED":
            raise RefusedError(3, "Invalid input error: the experiment is archived")
        reference = wanted.get("pipeline_version_reference")
        if reference is None or "pipeline_spec" in wanted:
            raise RefusedError(3, "Invalid input error: exactly one pipeline source must be given")
        version = self._get("pipeline_versions", reference.get("pipeline_version_id", ""))
        if version["pipeline_id"] != reference.get("pipeline_id"):
            raise RefusedError(3, "Invalid input error: the version is not of this pipeline")
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        kinds = {"STRING": str, "LIST": list, "STRUCT": dict, "BOOLEAN": bool, "NUMBER_INTEGER": int}
        for name, value in wanted.get("runtime_config", {}).get("parameters", {}).items():
            if name not in known:
                raise RefusedError(3, f"parameter(s) provided are not required by pipeline: {name}")
            if not isinstance(value, kinds[known[name]["parameterType"]]):
                raise RefusedError(3, f"input parameter {name} requires type {known[name]['parameterType']}")
        return version, self._allowed(experiment["namespace"])

    def _add(self, kind: str, thing: dict[str, Any]) -> dict[str, Any]:
        identity = str(uuid.uuid4())
        self.made += 1
        key = {"pipeline_versions": "pipeline_version_id"}.get(kind, f"{kind[:-1]}_id")
        self.things[kind][identity] = {**thing, key: identity, "created_at": stamp(datetime.now(UTC))}
        return self.things[kind][identity]

    def _upload(self, query: dict[str, str], body: bytes, headers: Any) -> dict[str, Any]:
        head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in message_from_bytes(head + body).walk()
            if not part.is_multipart()
        }
        file = parts.get("uploadfile")
        if file is None or not str(file.get_filename()).endswith((".yaml", ".yml", ".zip", ".tar.gz")):
            raise RefusedError(3, "Failed to create a pipeline version")
        documents = list(yaml.load_all(file.get_payload(decode=True), yaml.CSafeLoader))
        if "pipelineInfo" not in documents[0] or len(documents) > 2:
            raise RefusedError(3, "Failed to create a pipeline version: invalid spec")
        spec = documents[0]
        if len(documents) == 2:
            spec = {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        pipeline = self._get("pipelines", query.get("pipelineid", ""))
        name = query.get("name") or str(file.get_filename())
        if any(
            item["pipeline_id"] == pipeline["pipeline_id"] and item["display_name"] == name
            for item in self.all("pipeline_versions")
        ):
            raise RefusedError(6, "Failed to create a pipeline version")
        said = {"description": query["description"]} if "description" in query else {}
        version = {"pipeline_id": pipeline["pipeline_id"], "display_name": name, "name": name, **said}
        return self._add("pipeline_versions", {**version, "pipeline_spec": spec})

    def _run(self, identity: str) -> dict[str, Any]:
        run = self._get("runs", identity)
        if run["state"] in ("CANCELING", "CANCELED"):
            run["state"] = "CANCELED"
        elif run["state"] not in ("SUCCEEDED", "FAILED"):
            run["state"], nodes, end = self.workflows[identity].look()
            run["run_details"] = {"task_details": nodes}
            if end is not None:
                run["finished_at"] = stamp(end)
        return run

    def _namespace(self, item: dict[str, Any]) -> str:
        if "namespace" in item:
            return item["namespace"]
        return self.things["experiments"][item["experiment_id"]]["namespace"]

    def _allowed(self, namespace: str) -> str:
        if not self.multi_user:
            return ""  # a server of one user does not look at it
        if not namespace:
            raise RefusedError(3, "Invalid input error: a namespace is required")
        if namespace in self.forbidden:
            raise RefusedError(7, f"PermissionDenied: User is not authorized with reason: (namespace {namespace})")
        return namespace


def _offset(query: dict[str, str]) -> int:
    if not query.get("page_token"):
        return 0
    start, sort_by, chosen = json.loads(base64.b64decode(query["page_token"]))
    if [sort_by, chosen] != [query.get("sort_by", ""), query.get("filter", "")]:
        raise RefusedError(3, "page token does not match the supplied sort by and/or filtering criteria.")
    return int(start)


def _fits(item: dict[str, Any], text: str) -> bool:
    """Whether something has the name that a filter asks for; KFP's client writes the operation as a number."""
    for predicate in json.loads(unquote(text) or "{}").get("predicates", []):
        if predicate["operation"] not in ("EQUALS", 1) or predicate["key"] != "display_name":
            raise RefusedError(3, f"Invalid filter: {predicate}")
        if item["display_name"] != predicate["stringValue"]:
            return False
    return True
