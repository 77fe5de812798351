"""Asking a server for scores, over HTTP.

Source: the Open Inference Protocol, version 2 (KServe's "V2 inference protocol"), which Triton speaks.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from modelmill.core.errors import OutsideError

Text: TypeAlias = "str | tuple[str, str]"
"""A text, or a pair of them."""
_SECONDS = 120


class AnswerError(Exception):
    """The server answers, and not with scores; what it says."""


class Client:
    """One connection, kept open.

    Args:
        address: ``http://HOST:PORT``, a path behind it included.
        model: What the server calls the model.
        host: The Host header, where the address is a gateway that goes by it.
        seconds: How long an answer may take.
    """

    def __init__(self, address: str, model: str, *, host: str | None = None, seconds: float = _SECONDS) -> None:
        parts = urllib.parse.urlsplit(address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        self._path, self._model, self._address = parts.path.rstrip("/"), model, address
        self._headers = {"Host": host} if host else {}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def ready(self) -> bool:
        """Whether the server answers, and the model is loaded."""
        try:
            return self._ask("GET", f"/v2/models/{self._model}/ready", None)[0] == http.client.OK
        except OutsideError:
            return False

    def server(self) -> str:
        """The server's name and version."""
        found = self._told(*self._ask("GET", "/v2", None))
        return f"{found.get('name')} {found.get('version')}"

    def failed(self) -> str | None:
        """Why the server did not load a model of its repository, in its own words; None while none has failed."""
        status, content = self._ask("POST", "/v2/repository/index", {})
        listed: list[dict[str, str]] = json.loads(content) if status == http.client.OK else []
        reasons = [f"{item.get('name')}: {item.get('reason')}" for item in listed if item.get("state") == "UNAVAILABLE"]
        return reasons[0] if reasons else None

    def scores(self, texts: Sequence[Text]) -> np.ndarray:
        """The labels' shares: float32, shape (texts, labels).

        Raises:
            AnswerError: The server refuses a text.
            OutsideError: It does not answer.
        """
        columns: dict[str, list[str]] = {"text": [item if isinstance(item, str) else item[0] for item in texts]}
        if texts and not isinstance(texts[0], str):
            columns["text_pair"] = [item[1] for item in texts]
        inputs = [
            {"name": name, "datatype": "BYTES", "shape": [len(texts), 1], "data": values}
            for name, values in columns.items()
        ]
        asked = {"inputs": inputs, "outputs": [{"name": "scores"}]}
        found = self._told(*self._ask("POST", f"/v2/models/{self._model}/infer", asked))
        (output,) = found["outputs"]
        return np.asarray(output["data"], dtype=np.float32).reshape(output["shape"])

    def _told(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            found = json.loads(content)
        except ValueError:
            found = {}
        if status != http.client.OK or not isinstance(found, dict):
            said = found.get("error") if isinstance(found, dict) else None
            words = str(said or content[:200].decode(errors="replace")).strip()
            what = f"the server answers {status}: {words}"
            raise AnswerError(what)
        return found

    def _ask(self, method: str, path: str, document: object) -> tuple[int, bytes]:
        body = None if document is None else json.dumps(document).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            self._connection.request(method, self._path + path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            what = f"the server does not answer: {str(problem) or type(problem).__name__}"
            raise OutsideError(what, where=self._address, fix="see whether it runs, and run again") from None
