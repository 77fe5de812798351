"""A Kubeflow Pipelines server, reached by kfp's own client, and what it says when it refuses, in plain words.

kfp is imported where it is used, so that everything else loads without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelmill.core.errors import ModelmillError, OrchestratorError, UsageError
from modelmill.runners import kubeflow

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
"""kfp's own."""
TOKEN_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
"""kfp's own: a file that holds a token."""
_ANSWER_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """A server that has answered.

    Attributes:
        client: kfp's.
        address: The server's.
        namespace: The profile's namespace, on a server of several users.
    """

    client: Any
    address: str
    namespace: str | None


def connect(host: str | None, namespace: str | None) -> Server:
    """Find a server that answers.

    Args:
        host: The server's address; without it, what kfp's variable names.
        namespace: The profile's namespace, on a server of several users.

    Raises:
        UsageError: There is no address, no such API behind it, or no namespace where one is needed.
        OrchestratorError: The server is away or takes no credentials.
    """
    address = _address(host)
    kfp = kubeflow.library()
    credentials = None
    token = os.environ.get(TOKEN_VARIABLE) or kfp.client.KF_PIPELINES_SA_TOKEN_PATH
    if Path(token).is_file():
        credentials = kfp.client.ServiceAccountTokenVolumeCredentials()
    elif os.environ.get(TOKEN_VARIABLE):
        what = f"the token's file {token} is not there"
        raise UsageError(what, where=TOKEN_VARIABLE, fix="name the file that holds the token")

    class Client(kfp.Client):  # type: ignore[misc, name-defined]
        """Asks for the server's health once and for seconds; kfp's own asks five times without a limit."""

        def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
            answer, _, headers = self._healthz_api.healthz_service_get_healthz_with_http_info(
                _request_timeout=_ANSWER_SECONDS
            )
            if "json" not in headers.get("Content-Type", ""):
                what = "something answers there, but not Kubeflow Pipelines: a login page, perhaps"
                fix = f"name the address of its API, and have {TOKEN_VARIABLE} name a file with a token"
                raise UsageError(what, where=address, fix=fix)
            return answer

    with talking(address, api=True), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        client = Client(host=address, credentials=credentials)
        if client.get_kfp_healthz().multi_user and not namespace:
            what = "the server has several users, and each works in a namespace"
            raise UsageError(what, where="--kfp-namespace", fix="name your profile's namespace")
    return Server(client, address, namespace)


def _address(host: str | None) -> str:
    address = (host or os.environ.get(HOST_VARIABLE) or "").rstrip("/")
    if not address:
        what = "there is no address of Kubeflow Pipelines"
        raise UsageError(what, where="--host", fix=f"give --host https://…/pipeline, or set {HOST_VARIABLE}")
    try:
        parts = urlsplit(address)
        # A port that is no number shows when it is asked for.
        complete = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        what = f"{address!r} is no address"
        raise UsageError(what, where="--host", fix="write http:// or https:// and the server's name")
    if parts.username or parts.password:
        what = "the address holds a name or a password, which logs would repeat"
        raise UsageError(what, where="--host", fix=f"leave it out, and have {TOKEN_VARIABLE} name a file with a token")
    return address


@contextlib.contextmanager
def talking(address: str, *, api: bool = False) -> Iterator[None]:
    """Say plainly what kfp's client raises; what it prints goes to stderr.

    Args:
        address: The server's.
        api: Whether this is the first request, whose 404 means that the API is not there.

    Raises:
        UsageError: The server does not take what it was given.
        OrchestratorError: It is away, refuses or fails.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except ApiException as problem:
        raise _refused(problem, address, api) from None
    except HTTPError as problem:
        reason = type(getattr(problem, "reason", None) or problem).__name__
        what = f"Kubeflow Pipelines cannot be reached ({reason})"
        fix = "look at the address and the network, then run again"
        raise OrchestratorError(what, where=address, fix=fix) from None


def _refused(problem: Any, address: str, api: bool) -> ModelmillError:
    status, said = problem.status, _said(problem)
    if status in {401, 403}:
        what = f"Kubeflow Pipelines refuses the credentials ({status}{said})"
        fix = f"have {TOKEN_VARIABLE} name a file with a token that may do this in the namespace"
        return OrchestratorError(what, where=address, fix=fix)
    if api and status == 404:
        what = "the server has no Kubeflow Pipelines API v2beta1"
        return UsageError(what, where=address, fix="name the address before /apis; this needs Kubeflow Pipelines 2.5")
    if status in {400, 404, 409, 422}:
        what = f"Kubeflow Pipelines does not take this ({status}{said})"
        return UsageError(what, where=address, fix="look at what it names")
    what = f"Kubeflow Pipelines failed ({status or problem.reason}{said})"
    return OrchestratorError(what, where=address, fix="run again; its ml-pipeline pod's log says more")


def _said(problem: Any) -> str:
    """What a refusal's body says, without the stack trace that the server puts behind it."""
    try:
        body = json.loads(problem.body or "")
    except ValueError:
        return ""
    text = body.get("message") or body.get("error") if isinstance(body, dict) else None
    return f": {str(text).splitlines()[0][:300]}" if text else ""
