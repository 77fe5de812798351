"""A lane's model.py in a real Triton: pairs, refusals, several callers at once, and nothing left behind."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modelmill.serving.client import AnswerError, Client
from modelmill.serving.server import Installation
from modelmill.serving.triton_model import open_classifier
from served_lane import NAME, Served

TEXTS = ["my card is lost", "why is my top up pending?", "a", "Ünïcödé 🙂 text", "x" * 2000, " "]


def test_several_callers_at_once_get_what_each_gets_alone(together: Served) -> None:
    alone = [open_classifier(together.lane, 1).scores([text]) for text in TEXTS]

    def ask(number: int) -> float:
        with Client(together.address, NAME) as client:
            return float(np.abs(client.scores([TEXTS[number % 6]]) - alone[number % 6]).max())

    with ThreadPoolExecutor(8) as callers:
        assert max(callers.map(ask, range(48))) < 1e-5


def test_pairs_of_texts_are_read_as_pairs(together: Served) -> None:
    pairs = [("my card is lost", "why"), ("a", "b")]
    with Client(together.address, NAME) as client:
        scores = client.scores(pairs)
        assert np.abs(scores - open_classifier(together.lane, 1).scores(pairs)).max() < 1e-6
        assert np.abs(scores - client.scores([first for first, _ in pairs])).max() > 1e-5


def test_a_request_beyond_the_largest_batch_is_refused_and_the_next_is_answered(together: Served) -> None:
    with Client(together.address, NAME) as client:
        with pytest.raises(AnswerError, match=r"400.*32"):
            client.scores(["a"] * 33)
        assert client.scores(["a"] * 32).shape == (32, 3)


def test_a_text_that_is_no_text_is_its_callers_error_alone(together: Served) -> None:
    header = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1, 1], "parameters": {"binary_data_size": 6}}]}
    head, broken = json.dumps(header).encode(), (2).to_bytes(4, "little") + b"\xff\xfe"
    connection = http.client.HTTPConnection(together.address.removeprefix("http://"))
    connection.request(
        "POST", f"/v2/models/{NAME}/infer", head + broken, {"Inference-Header-Content-Length": str(len(head))}
    )
    answer = connection.getresponse()
    words = answer.read().decode()
    connection.close()
    assert answer.status >= 400
    assert "UnicodeDecodeError" in words
    with Client(together.address, NAME) as client:
        assert client.scores(["a"]).shape == (1, 3)


def test_a_model_that_is_not_there_is_an_error_with_the_servers_words(together: Served) -> None:
    with Client(together.address, "other") as client, pytest.raises(AnswerError, match="other"):
        client.scores(["a"])


def test_the_server_ends_when_who_started_it_is_killed(installation: Installation, together: Served) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom modelmill.serving.server import Installation, serve\n"
        "site = Path(sys.argv[1])\nfolder = Path(sys.argv[2])\n"
        "with serve(Installation(folder, site, {}), Path(sys.argv[3]), 'banking') as address:\n"
        "    print(address, flush=True)\n    time.sleep(600)\n"
    )
    repository = together.lane / "serving" / "cpu-int8"
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(installation.site), str(installation.folder), str(repository)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert starter.stdout is not None
    address = starter.stdout.readline().strip()
    with Client(address, NAME) as client:
        assert client.ready()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    end = time.monotonic() + 30
    with Client(address, NAME, seconds=2) as client:
        while client.ready() and time.monotonic() < end:
            time.sleep(0.2)
        assert not client.ready()
    assert Path(repository).is_dir()
