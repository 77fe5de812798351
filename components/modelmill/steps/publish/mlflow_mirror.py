"""Registrations in MLflow's model registry: a version for each bundle, an alias for each channel.

By MLflow's REST API and nothing else: its client, mlflow-skinny, brings 25 packages more into the image that holds the
release keys. Source: mlflow.org/docs/latest/rest-api.html, version 2.0 of the API, which MLflow 2 and 3 both speak.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from modelmill.core.bundle import EVIDENCE_DOCUMENT
from modelmill.core.errors import DeploymentError, MirrorError, ModelmillError
from modelmill.steps.publish.mirror import MirrorCredentials, Registered
from modelmill.steps.publish.mirror_settings import MlflowMirror

DIGEST_TAG = "modelmill.digest"
_API = "api/2.0/mlflow"
_TIMEOUT_SECONDS = 30
_ATTEMPTS = 3
_MAX_BYTES = 1 << 24
_MAX_TAG = 4000
_PAGE = 1000


class _Missing(Exception):
    """MLflow knows nothing of that name."""


class _Exists(Exception):
    """MLflow has that name already."""


class MlflowRegistry:
    """One registered model of an MLflow server."""

    def __init__(
        self, settings: MlflowMirror, model: str, credentials: MirrorCredentials, pause_seconds: float = 0.5
    ) -> None:
        self._settings, self._credentials, self._pause = settings, credentials, pause_seconds
        self._name = settings.registered(model)
        self._versions: dict[str, int] = {}

    def put(self, bundle: Registered) -> str | None:
        """Make the version of a bundle, once.

        MLflow has no unique key on versions: of two that racing writers made of one bundle, the one with the lower
        number stays, which both find.
        """
        if self._version(bundle) is not None:
            return None
        self._create_model()
        made = self._call("POST", "model-versions/create", self._told(bundle))
        number = int(self._at(made, "model_version", "version"))
        first = self._find(bundle.digest)
        if first is not None and first < number:
            self._call("DELETE", "model-versions/delete", {"name": self._name, "version": str(number)})
            self._versions[bundle.digest] = first
            return None
        self._versions[bundle.digest] = number
        return f"{self._name} has version {number} for {bundle.digest}"

    def point(self, channel: str, bundle: Registered) -> str | None:
        """Let the alias of the channel's name lead to a bundle's version."""
        number = self._version(bundle)
        if number is None:
            self.put(bundle)
            number = self._versions[bundle.digest]
        # Asked for an alias that is not there, servers answer in ways of their own.
        found = self._call("GET", "registered-models/get", {"name": self._name})
        aliases = self._at(found, "registered_model").get("aliases", [])
        if {"alias": channel, "version": str(number)} in aliases:
            return None
        alias = {"name": self._name, "alias": channel, "version": str(number)}
        self._call("POST", "registered-models/alias", alias)
        return f"{self._name}@{channel} is version {number}"

    def _version(self, bundle: Registered) -> int | None:
        if bundle.digest not in self._versions:
            found = self._find(bundle.digest)
            if found is None:
                return None
            self._versions[bundle.digest] = found
        return self._versions[bundle.digest]

    def _find(self, digest: str) -> int | None:
        """The lowest version with a bundle's digest, of all pages."""
        quoted = self._name.replace("'", "''")
        token, numbers = "", []
        while True:
            query = {"filter": f"name='{quoted}' and tags.`{DIGEST_TAG}`='{digest}'", "max_results": str(_PAGE)}
            found = self._call("GET", "model-versions/search", {**query, **({"page_token": token} if token else {})})
            numbers += [int(self._at(item, "version")) for item in found.get("model_versions", [])]
            token = str(found.get("next_page_token") or "")
            if not token:
                return min(numbers, default=None)

    def _create_model(self) -> None:
        try:
            self._call("GET", "registered-models/get", {"name": self._name})
        except _Missing:
            about = "Bundles that modelmill published: a version is a bundle, an alias a channel."
            try:
                self._call("POST", "registered-models/create", {"name": self._name, "description": about})
            except _Exists:
                # Another writer came first between the two requests.
                return

    def _told(self, bundle: Registered) -> dict[str, Any]:
        record = bundle.record
        tags = {
            DIGEST_TAG: bundle.digest,
            "modelmill.artifact": record.artifact,
            "modelmill.model": record.model,
            "modelmill.verdict": bundle.verdict,
            "modelmill.run": record.run,
            "modelmill.signer": record.signer,
            **figures(bundle),
        }
        told = [{"key": key, "value": value[:_MAX_TAG]} for key, value in tags.items() if value]
        uri = bundle.uri
        about = f"{record.model}, bundle {bundle.digest}, verdict {bundle.verdict}. Report: {uri}/report.html"
        return {"name": self._name, "source": _source(uri), "description": about, "tags": told}

    def _call(self, method: str, what: str, sent: Mapping[str, Any]) -> dict[str, Any]:
        """One request, tried again where the server is away.

        Raises:
            DeploymentError: The server refuses.
            MirrorError: It is away.
            _Missing: It knows nothing of that name.
            _Exists: It has that name already.
        """
        request = self._request(method, what, sent)
        for attempt in range(_ATTEMPTS):
            try:
                with _opener().open(request, timeout=_TIMEOUT_SECONDS) as answer:
                    found = json.loads(answer.read(_MAX_BYTES) or b"{}")
                if isinstance(found, dict):
                    return found
                raise self._refused(200, "", "its answer is no JSON object")
            except urllib.error.HTTPError as problem:
                code, said = self._said(problem)
                if code == "RESOURCE_DOES_NOT_EXIST":
                    raise _Missing(said) from None
                if code == "RESOURCE_ALREADY_EXISTS":
                    raise _Exists(said) from None
                if problem.code < 500 and problem.code not in (408, 429):
                    raise self._refused(problem.code, code, said) from None
                why = f"it answered {problem.code} {said}"
            except ValueError:
                raise self._refused(200, "", "its answer is no JSON") from None
            except (OSError, http.client.HTTPException) as problem:
                why = str(getattr(problem, "reason", problem))
            if attempt + 1 < _ATTEMPTS:
                time.sleep(self._pause * 2**attempt)
        what = f"MLflow does not answer: {self._credentials.redacted(why)}"
        raise MirrorError(what, where=self._settings.address, fix="check mirrors.mlflow.address, or wait until it does")

    def _at(self, document: Any, *keys: str) -> Any:
        for key in keys:
            if not isinstance(document, dict) or key not in document:
                raise self._refused(200, "", f"its answer has no {key}")
            document = document[key]
        return document

    def _request(self, method: str, what: str, sent: Mapping[str, Any]) -> urllib.request.Request:
        address = f"{self._settings.address.rstrip('/')}/{_API}/{what}"
        data = None
        if method == "GET":
            address += f"?{urllib.parse.urlencode(sent)}"
        else:
            data = json.dumps(sent).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "modelmill"}
        given = self._credentials
        if given.mlflow_token:
            headers["Authorization"] = f"Bearer {given.mlflow_token}"
        elif given.mlflow_username:
            pair = f"{given.mlflow_username}:{given.mlflow_password or ''}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return urllib.request.Request(address, data, headers, method=method)

    def _said(self, problem: urllib.error.HTTPError) -> tuple[str, str]:
        """The error's code and words, as MLflow gives them."""
        try:
            document = json.loads(problem.read(_MAX_BYTES))
            code, words = str(document["error_code"]), str(document.get("message", ""))
        except (ValueError, OSError, KeyError, TypeError, AttributeError):
            code, words = "", problem.reason
        return code, self._credentials.redacted(words)[:300]

    def _refused(self, status: int, code: str, said: str) -> ModelmillError:
        where, said = self._settings.address, f"{code} {said}".strip()
        if status in (401, 403):
            what = f"MLflow does not let modelmill write {self._name} ({status})"
            fix = (
                "set MODELMILL_MIRROR_MLFLOW_USERNAME and MODELMILL_MIRROR_MLFLOW_PASSWORD, or "
                "MODELMILL_MIRROR_MLFLOW_TOKEN, of one who may"
            )
        elif code:
            what = f"MLflow refuses ({status}): {said}"
            fix = "mend what it names: mirrors.mlflow.name, the channel's name, or where the store lies"
        else:
            what = f"what answers at the address is no MLflow server ({status}): {said}"
            fix = "check mirrors.mlflow.address: it is the tracking server's, without a path behind it"
        return DeploymentError(what, where=where, fix=fix)


def figures(bundle: Registered) -> dict[str, str]:
    """The numbers that the verdict of each lane stands on, as tags: ``modelmill.cpu-int8.accuracy`` → ``0.919``.

    Raises:
        InputError: The bundle cannot be read.
        StoreError: It is gone.
    """
    try:
        document = json.loads((bundle.directory / EVIDENCE_DOCUMENT).read_bytes())
        return dict(_figures(document["lanes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ValidationError):
        # A bundle of an older modelmill has another evidence.json, or none: its verdict is told all the same.
        return {}


def _figures(lanes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for target, lane in lanes.items():
        at = f"modelmill.{target}"
        yield f"{at}.verdict", str(lane["verdict"])
        yield f"{at}.{lane['metric']['name']}", f"{lane['candidate']:.4f}"
        low, high = lane["drop_points_ci"]
        yield f"{at}.drop_points", f"{lane['drop_points']:.2f} [{low:.2f}, {high:.2f}]"
        yield f"{at}.size_bytes", str(lane["size_bytes"])
        yield f"{at}.precision", str(lane["precision"])
        yield f"{at}.hardware_class", str(lane["hardware_class"])
        for cell in lane["latency"]:
            low, high = cell["speedup_ci"]
            shape = f"{cell['batch_size']}x{cell['sequence_length']}"
            yield f"{at}.speedup.{shape}", f"{cell['speedup']:.2f} [{low:.2f}, {high:.2f}]"
            yield f"{at}.ms_p50.{shape}", f"{cell['candidate_ms_p50']:.3f}"


def _source(uri: str) -> str:
    """A bundle's address as MLflow takes it: a directory it takes from runs of its own alone, so that gets a scheme."""
    return uri if "://" in uri else f"modelmill://{urllib.parse.quote(uri)}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would carry the credentials to another server."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirect)
