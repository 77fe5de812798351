"""A server that speaks Kubeflow Pipelines' API v2beta1 as far as schedules need it.

Real HTTP on loopback for kfp's real client. It refuses what the real one refuses: fields that a message does not have
(backend/src/apiserver/common/utils.go: DiscardUnknown false), packages that are no pipeline, parameters that the
pipeline has not or of another type (template/v2_template.go, validatePipelineJobInputs), cron expressions that
robfig/cron v1 does not read, concurrency outside of 1 to 10, experiments and versions that are not there. Like it, it
keeps no name of a recurring run apart, answers without empty fields, and writes int64 as text.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

_KINDS = {
    "STRING": lambda value: isinstance(value, str),
    "BOOLEAN": lambda value: isinstance(value, bool),
    "NUMBER_INTEGER": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "NUMBER_DOUBLE": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_CRON = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_CRON_NAMES = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())} | {
    name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)
}


class Refused(Exception):
    """An answer with an error.

    Args:
        status: HTTP's.
        message: The server's.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


@dataclass
class Pipelines:
    """The server's state; tests write it, requests read it."""

    url: str = ""
    experiments: list[dict[str, Any]] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    recurring: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """``METHOD PATH`` of every request, in order."""
    multi_user: bool = False
    token: str | None = None
    """Who does not send it is refused."""
    forbidden: bool = False
    old: bool = False
    """Whether the API is not there."""
    login: bool = False
    """Whether a login page answers every request."""
    failures: dict[str, int] = field(default_factory=dict)
    """``METHOD PATH`` → status to answer the next such request with, once."""
    page_size: int = 2
    """Items of a page at most, whatever a client asks for."""

    def start(self, recurring: Mapping[str, Any], state: str, at: str) -> None:
        """A run as the server starts it for a schedule."""
        self.runs.append(
            {
                "run_id": str(uuid.uuid4()),
                "display_name": recurring["display_name"],
                "recurring_run_id": recurring["recurring_run_id"],
                "experiment_id": recurring["experiment_id"],
                "state": state,
                "created_at": at,
                "finished_at": at,
            }
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Pipelines

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None: ...

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        asked = f"{self.command} {unquote(parts.path)}"
        self.state.requests.append(asked)
        if self.state.login:
            self._send(200, b"<!doctype html><form>", "text/html")
            return
        try:
            if asked in self.state.failures:
                raise Refused(self.state.failures.pop(asked), "Internal error: planted\nat a stack trace")
            self._allowed()
            found = self._found(parts.path.removeprefix("/apis/v2beta1"), query, body)
        except Refused as problem:
            text = json.dumps({"code": 3, "message": problem.message, "details": []})
            self._send(problem.status, text.encode(), "application/json")
            return
        self._send(200, json.dumps(found).encode(), "application/json")

    def _allowed(self) -> None:
        if self.state.old:
            raise Refused(404, "Not Found")
        if self.state.token and self.headers.get("authorization") != f"Bearer {self.state.token}":
            raise Refused(401, "Request header error: there is no user identity header.")
        if self.state.forbidden:
            raise Refused(403, "User 'a' is not authorized")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _found(self, path: str, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        state = self.state
        listed: dict[str, tuple[str, list[dict[str, Any]]]] = {
            "/experiments": ("experiments", state.experiments),
            "/pipelines": ("pipelines", state.pipelines),
            "/recurringruns": ("recurringRuns", state.recurring),
            "/runs": ("runs", state.runs),
        }
        made: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "/experiments": self._experiment,
            "/pipelines": self._pipeline,
            "/recurringruns": self._recurring,
        }
        if path == "/healthz":
            return {"multi_user": True} if state.multi_user else {}
        if path == "/pipelines/upload_version":
            return self._version(query, body)
        if self.command == "GET" and path in listed:
            key, items = listed[path]
            if state.multi_user and path != "/pipelines" and not (query.get("namespace") or query.get("experiment_id")):
                raise Refused(400, "Invalid input error: namespace is empty")
            return self._page(key, items, query)
        if self.command == "POST" and path in made:
            return made[path](json.loads(body))
        if match := re.fullmatch(r"/pipelines/([^/]+)/versions", path):
            versions = [item for item in state.versions if item["pipeline_id"] == match[1]]
            return self._page("pipeline_versions", versions, query)
        if match := re.fullmatch(r"/recurringruns/([^/]+)", path):
            item = _one(state.recurring, "recurring_run_id", match[1])
            if self.command == "DELETE":
                state.recurring.remove(item)
                return {}
            return item
        raise Refused(404, "Not Found")

    def _page(self, key: str, items: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
        for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
            known = {"operation", "key", "stringValue", "string_value"}
            if predicate.keys() - known or predicate["operation"] not in ("EQUALS", 1):
                raise Refused(400, f"Invalid input error: unknown field in {predicate}")
            wanted = predicate.get("string_value", predicate.get("stringValue"))
            items = [item for item in items if item.get(predicate["key"]) == wanted]
        if query.get("namespace") and self.state.multi_user:
            items = [item for item in items if item.get("namespace") == query["namespace"]]
        if query.get("sort_by"):
            by, _, order = query["sort_by"].partition(" ")
            items = sorted(items, key=lambda item: str(item[by]), reverse=order == "desc")
        begin = int(query.get("page_token") or 0)
        end = begin + min(int(query.get("page_size") or 10), self.state.page_size)
        page: dict[str, Any] = {key: items[begin:end], "total_size": len(items)}
        return {**page, "next_page_token": str(end)} if end < len(items) else page

    def _experiment(self, given: dict[str, Any]) -> dict[str, Any]:
        _known(given, kfp_server_api.V2beta1Experiment)
        if self.state.multi_user and not given.get("namespace"):
            raise Refused(400, "Invalid input error: An experiment cannot have an empty namespace in multi-user mode")
        return _kept(self.state.experiments, "experiment_id", given)

    def _pipeline(self, given: dict[str, Any]) -> dict[str, Any]:
        _known(given, kfp_server_api.V2beta1Pipeline)
        if any(item["display_name"] == given["display_name"] for item in self.state.pipelines):
            raise Refused(409, f"Already exist error: a pipeline named {given['display_name']}")
        return _kept(self.state.pipelines, "pipeline_id", {"name": given["display_name"], **given})

    def _version(self, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        _one(self.state.pipelines, "pipeline_id", query["pipelineid"])
        kind = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        (part,) = BytesParser().parsebytes(kind + body).get_payload()
        package = part.get_payload(decode=True)  # type: ignore[union-attr]
        assert isinstance(package, bytes)
        try:
            spec, *platform = yaml.safe_load_all(package)
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
            for document in platform:
                json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
        except (ValueError, json_format.ParseError) as problem:
            raise Refused(400, f"Invalid input error: {problem}") from None
        same = [item for item in self.state.versions if item["pipeline_id"] == query["pipelineid"]]
        if any(item["display_name"] == query["name"] for item in same):
            raise Refused(409, f"Already exist error: a version named {query['name']}")
        given = {"pipeline_id": query["pipelineid"], "display_name": query["name"], "pipeline_spec": spec}
        return _kept(self.state.versions, "pipeline_version_id", given)

    def _recurring(self, given: dict[str, Any]) -> dict[str, Any]:
        _known(given, kfp_server_api.V2beta1RecurringRun)
        experiment = _one(self.state.experiments, "experiment_id", given.get("experiment_id"))
        reference = given["pipeline_version_reference"]
        version = _one(self.state.versions, "pipeline_version_id", reference["pipeline_version_id"])
        _fits(given.get("runtime_config", {}).get("parameters") or {}, version["pipeline_spec"])
        if not 1 <= int(given["max_concurrency"]) <= 10:
            raise Refused(400, "Invalid input error: Max concurrency must be at least 1 and at most 10")
        _cron(given["trigger"]["cron_schedule"]["cron"])
        mode = given.pop("mode")
        state = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[mode]
        kept = {**given, "mode": mode, "status": state, "max_concurrency": str(given["max_concurrency"])}
        if not kept.get("no_catchup"):
            kept.pop("no_catchup", None)
        if not kept.get("runtime_config", {}).get("parameters"):
            kept.pop("runtime_config", None)
        kept["namespace"] = experiment["namespace"] if self.state.multi_user else "kubeflow"
        return _kept(self.state.recurring, "recurring_run_id", kept)


def _kept(items: list[dict[str, Any]], key: str, given: dict[str, Any]) -> dict[str, Any]:
    item = {key: str(uuid.uuid4()), "created_at": "2026-11-22T10:00:00Z", **given}
    items.append(item)
    return item


def _one(items: list[dict[str, Any]], key: str, value: object) -> dict[str, Any]:
    for item in items:
        if item[key] == value:
            return item
    raise Refused(404, f"Resource not found: {key} {value}")


def _known(given: Mapping[str, Any], message: Any) -> None:
    """Refuse a field that a message, or one inside it, does not have."""
    names = {message.attribute_map[name]: kind for name, kind in message.openapi_types.items()}
    for name, value in given.items():
        if name not in names:
            raise Refused(400, f'proto: unknown field "{name}"')
        inner = getattr(kfp_server_api, names[name], None)
        if isinstance(value, dict) and inner is not None and hasattr(inner, "openapi_types"):
            _known(value, inner)


def _fits(parameters: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in parameters.items():
        if name not in declared:
            raise Refused(400, f"Invalid input error: parameter {name} is not in the pipeline")
        if not _KINDS[declared[name]["parameterType"]](value):
            raise Refused(400, f"Invalid input error: input parameter {name} requires another type than {value!r}")


def _cron(text: str) -> None:
    fields = text.lower().split()
    if len(fields) not in (5, 6):
        raise Refused(400, f"Schedule cron is not a supported format. Error: Expected 5 to 6 fields, found {text}")
    for item, (low, high) in zip(fields, _CRON, strict=False):
        for part in item.split(","):
            span, _, step = part.partition("/")
            ends = [] if span in ("*", "?") else [_CRON_NAMES.get(end, end) for end in span.split("-")]
            numbers = [int(end) if str(end).isdecimal() else -1 for end in ends]
            if step == "0" or any(not low <= number <= high for number in numbers) or numbers != sorted(numbers):
                raise Refused(400, f"Schedule cron is not a supported format. Error: {part!r} is out of range")


@contextmanager
def kubeflow_server() -> Iterator[Pipelines]:
    """Run the server on a free port of loopback."""
    state = Pipelines()
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
