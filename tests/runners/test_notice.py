"""What is said where nobody could be told how a run ended: the address may hold a token."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from listener import listener
from modelmill.runners.notice import NOTIFY_VARIABLE, tell

TOKEN = "PLANTED"


@pytest.fixture
def mumbling() -> Iterator[str]:
    """The address of a server that answers other than HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with server.accept()[0] as asked:
                asked.recv(65536)
                asked.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"http://127.0.0.1:9/hook?token={TOKEN} TOKEN", "InvalidURL"),
        (f"http://127.0.0.1:port/{TOKEN}", "InvalidURL"),
        (f"http://127.0.0.1:{10**20}/{TOKEN}", "OverflowError"),
        (f"http://127.0.0.1:9/{TOKEN}", "URLError"),
        (f"http://[::1/{TOKEN}", "ValueError"),
        (TOKEN, "ValueError"),
    ],
)
def test_an_address_that_cannot_be_told_is_one_line_without_it(
    url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NOTIFY_VARIABLE, url)
    said = tell({"run": "x"})
    assert said == f"the end of the run could not be told to {NOTIFY_VARIABLE}: {kind}"


def test_a_server_that_answers_other_than_http_is_one_line_without_its_address(
    mumbling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NOTIFY_VARIABLE, f"{mumbling}/{TOKEN}")
    assert tell({"run": "x"}) == f"the end of the run could not be told to {NOTIFY_VARIABLE}: BadStatusLine"


def test_who_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with listener() as (address, told):
        monkeypatch.setenv(NOTIFY_VARIABLE, address)
        assert tell({"run": "x"}) is None
    assert told == [{"run": "x"}]
