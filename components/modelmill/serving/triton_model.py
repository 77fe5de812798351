"""Texts in, scores out: one lane of a bundle in Triton's Python backend.

This file stands in the bundle as ``serving/TARGET/MODEL/1/model.py`` and needs numpy, tokenizers and onnxruntime alone.
It reads the model where it lies in the bundle (the parameter ``artifact`` of config.pbtxt, relative to that file), so
that graph and tokenizer are there once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from tokenizers import Tokenizer

_DTYPES = {"int64": np.int64, "int32": np.int32}
_LEFT_OUT = ("SkipLayerNormFusion",)
"""Fusions of ONNX Runtime that cost on a CPU, left out as in the line's own sessions."""
_ERRORS_ONLY = 3
"""ONNX Runtime's severity from which it writes to stderr."""

Text: TypeAlias = "str | tuple[str, str]"
"""A text, or a pair of them."""


class Encoder:
    """The model's tokenizer, as the line uses it: cut at the model's maximum, padded on the right by batch."""

    def __init__(self, directory: Path, max_length: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        # What the file says of truncation and padding is set aside: it may cut earlier than the model does.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")
        config = json.loads((directory / "tokenizer_config.json").read_text("utf-8"))
        token = config.get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
        self._pad = {
            "input_ids": self._tokenizer.token_to_id(token) if token else None,
            "token_type_ids": config.get("pad_token_type_id", 0),
            "attention_mask": 0,
        }

    def lengths(self, texts: Sequence[Text]) -> list[int]:
        """Tokens of each text, special ones included."""
        return [len(found.ids) for found in self._tokenizer.encode_batch(list(texts))]

    def encode(self, texts: Sequence[Text]) -> dict[str, np.ndarray]:
        """Column name → int64, shape (texts, tokens of the longest)."""
        encodings = self._tokenizer.encode_batch(list(texts))
        rows = {
            "input_ids": [found.ids for found in encodings],
            "attention_mask": [found.attention_mask for found in encodings],
            "token_type_ids": [found.type_ids for found in encodings],
        }
        lengths = [len(row) for row in rows["input_ids"]]
        if min(lengths) < max(lengths) and self._pad["input_ids"] is None:
            what = "the tokenizer has no padding token: send texts one at a time"
            raise ValueError(what)
        columns = {}
        for name, values in rows.items():
            column = np.full((len(values), max(lengths)), self._pad[name] or 0, dtype=np.int64)
            for index, row in enumerate(values):
                column[index, : lengths[index]] = row
            columns[name] = column
        return columns


def divide(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Rows of a batch in the parts that model.json's ``micro_batching`` asks for: of like length, of few tokens.

    The same parts as the line's own sessions make, so that a model that answers by its batch answers the same.
    """
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if parts and (len(parts[-1]) + 1) * lengths[row] <= max_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


class OwnGraphs:
    """The model's graphs on ONNX Runtime in this process."""

    def __init__(self, directory: Path, document: Mapping[str, Any], threads: int) -> None:
        # Where the server itself runs the graphs, on a GPU, its Python has no ONNX Runtime.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        for name, value in document.get("session", {}).items():
            options.add_session_config_entry(name, value)
        self._sessions = {
            role: onnxruntime.InferenceSession(
                str(directory / component["file"]),
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=[*_LEFT_OUT],
            )
            for role, component in document["components"].items()
        }

    def run(self, role: str, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays of ``outputs``, in their order."""
        return cast("list[np.ndarray]", self._sessions[role].run(outputs, feeds))


class ServedGraphs:
    """The model's graphs as models of the server, which runs them on its GPU."""

    def __init__(self, triton: Any, model: str) -> None:
        self._triton, self._model = triton, model

    def run(self, role: str, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The arrays of ``outputs``, in their order."""
        request = self._triton.InferenceRequest(
            model_name=f"{self._model}-{role}",
            requested_output_names=outputs,
            inputs=[self._triton.Tensor(name, value) for name, value in feeds.items()],
            preferred_memory=self._triton.PreferredMemory(self._triton.TRITONSERVER_MEMORY_CPU, 0),
        )
        response = request.exec()
        if response.has_error():
            raise ValueError(response.error().message())
        return [self._triton.get_output_tensor_by_name(response, name).as_numpy() for name in outputs]


class Classifier:
    """A model artifact with one tokenizer, whose last graph gives each text a number for each label.

    Args:
        directory: What holds model.json.
        document: What model.json says.
        graphs: What runs the graphs.
        part_graphs: What runs parts of a batch side by side, each on a part of the threads; None: nothing does.
    """

    def __init__(
        self,
        directory: Path,
        document: Mapping[str, Any],
        graphs: OwnGraphs | ServedGraphs,
        part_graphs: OwnGraphs | None = None,
    ) -> None:
        self.labels: list[str] = document["labels"]
        self._encoder = Encoder(directory, document["max_length"])
        self._stages = document["execution"]["stages"]
        self._graphs, self._part_graphs = graphs, part_graphs or graphs
        division = document.get("micro_batching") or {}
        self._max_tokens: int | None = division.get("max_tokens")
        self._executor = ThreadPoolExecutor(division["workers"]) if part_graphs is not None else None
        self._dtypes = {
            (role, tensor["name"]): _DTYPES.get(tensor["dtype"])
            for role, component in document["components"].items()
            for tensor in component["inputs"]
        }

    def scores(self, texts: Sequence[Text]) -> np.ndarray:
        """The labels' shares, float32, shape (texts, labels), all texts in one batch."""
        columns = self._encoder.encode(texts)
        logits = self._divided(columns) if self._max_tokens is not None else self._run(columns, self._graphs)
        shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-1, keepdims=True))

    def _divided(self, columns: dict[str, np.ndarray]) -> np.ndarray:
        lengths = columns["attention_mask"].sum(axis=1).tolist()
        parts = divide(lengths, self._max_tokens or 0)
        graphs = self._graphs if len(parts) == 1 else self._part_graphs

        def run(part: list[int]) -> np.ndarray:
            longest = max(lengths[row] for row in part)
            return self._run({name: column[part, :longest] for name, column in columns.items()}, graphs)

        parts.reverse()
        found = list(map(run, parts) if self._executor is None else self._executor.map(run, parts))
        logits = np.empty((len(lengths), *found[0].shape[1:]), dtype=np.float32)
        for part, values in zip(parts, found, strict=True):
            logits[part] = values
        return logits

    def _run(self, columns: dict[str, np.ndarray], graphs: OwnGraphs | ServedGraphs) -> np.ndarray:
        values: dict[str, Any] = dict(columns)
        for stage in self._stages:
            role, outputs = stage["component"], list(stage["gives"])
            feeds = {name: self._fed(role, name, values[value]) for name, value in stage["feeds"].items()}
            given = graphs.run(role, outputs, feeds)
            values.update(zip(stage["gives"].values(), given, strict=True))
        (result,) = self._stages[-1]["gives"].values()
        return cast("np.ndarray", values[result].astype(np.float32))

    def _fed(self, role: str, name: str, value: np.ndarray) -> np.ndarray:
        dtype = self._dtypes[role, name]
        return value if dtype is None else value.astype(dtype, copy=False)


def open_classifier(directory: Path, threads: int) -> Classifier:
    """The model in ``directory``, on as many threads in this process."""
    return _on_own_graphs(directory, read_document(directory), threads)


def _on_own_graphs(directory: Path, document: Mapping[str, Any], threads: int) -> Classifier:
    """As the line's own sessions: a batch of one part has all threads, and parts side by side divide them."""
    workers = min((document.get("micro_batching") or {}).get("workers", 1), threads)
    parts = OwnGraphs(directory, document, threads // workers) if workers > 1 else None
    return Classifier(directory, document, OwnGraphs(directory, document, threads), parts)


def read_document(directory: Path) -> dict[str, Any]:
    """What model.json says."""
    return cast("dict[str, Any]", json.loads((directory / "model.json").read_text("utf-8")))


class TritonPythonModel:
    """What Triton calls. Each request is a batch of texts; several are run as one only where the configuration says so.

    Source: the README of triton-inference-server/python_backend, "Usage".
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model that the configuration names."""
        # This module is Triton's own and exists in its process alone; the classes above are used elsewhere, too.
        import triton_python_backend_utils  # type: ignore[import-not-found]

        self._triton = triton_python_backend_utils
        parameters = {
            name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()
        }
        directory = (Path(args["model_repository"]) / parameters["artifact"]).resolve()
        document = read_document(directory)
        self._classifier = (
            Classifier(directory, document, ServedGraphs(self._triton, args["model_name"]))
            if parameters["graphs"] == "server"
            else _on_own_graphs(directory, document, int(parameters["threads"]))
        )
        self._labels = np.asarray([label.encode() for label in self._classifier.labels], dtype=object)
        self._together = parameters["together"] == "yes"
        if parameters["graphs"] == "here":
            # What a first request would wait for. The server may still be loading graphs of its own.
            self._classifier.scores(["warm up"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request."""
        answers: list[Any] = [None] * len(requests)
        read: dict[int, list[Text]] = {}
        for number, request in enumerate(requests):
            try:
                read[number] = self._texts(request)
            except ValueError as problem:
                answers[number] = self._refusal(problem)
        groups = [list(read)] if self._together and read else [[number] for number in read]
        for group in groups:
            try:
                scores = self._classifier.scores([text for number in group for text in read[number]])
            except Exception as problem:
                # Whatever it is, it is these requests' answer; the server goes on.
                for number in group:
                    answers[number] = self._refusal(problem)
                continue
            start = 0
            for number in group:
                end = start + len(read[number])
                answers[number] = self._response(scores[start:end])
                start = end
        return answers

    def _texts(self, request: Any) -> list[Text]:
        given = self._triton.get_input_tensor_by_name(request, "text").as_numpy().reshape(-1)
        texts = [value.decode("utf-8") for value in given]
        second = self._triton.get_input_tensor_by_name(request, "text_pair")
        if second is None:
            return list(texts)
        pairs = [value.decode("utf-8") for value in second.as_numpy().reshape(-1)]
        return list(zip(texts, pairs, strict=True))

    def _response(self, scores: np.ndarray) -> Any:
        tensor = self._triton.Tensor
        labels = self._labels[scores.argmax(axis=-1)].reshape(-1, 1)
        return self._triton.InferenceResponse(output_tensors=[tensor("scores", scores), tensor("label", labels)])

    def _refusal(self, problem: Exception) -> Any:
        error = self._triton.TritonError(f"{type(problem).__name__}: {problem}")
        return self._triton.InferenceResponse(output_tensors=[], error=error)
