"""Temporary folders go with the process that made them, or at the next start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from modelmill.core import temporary

_HOLDS_A_FOLDER = """
import time
from modelmill.core import temporary
with temporary.folder("held") as path:
    (path / "file").write_text("x")
    print(path, flush=True)
    time.sleep(60)
"""


def test_a_folder_of_one_who_lives_stays_and_a_killed_ones_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "modelmill-of-somebody").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", _HOLDS_A_FOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as holder:
        assert holder.stdout is not None
        held = Path(holder.stdout.readline().strip())
        with temporary.folder("mine") as mine:
            assert held.is_dir()
            with temporary.folder("other"):
                assert mine.is_dir()
        assert not mine.exists()
        holder.send_signal(signal.SIGKILL)
    assert held.is_dir()
    with temporary.folder("mine"):
        assert not held.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["modelmill-of-somebody"]


def test_a_folder_that_goes_while_others_are_looked_at_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stays = tmp_path / "modelmill-stays"
    goes = tmp_path / "modelmill-goes"
    stays.mkdir()
    goes.mkdir()
    real_scandir = os.scandir

    def scan_and_remove(path: str) -> object:
        with real_scandir(path) as found:
            items = list(found)
        goes.rmdir()
        return contextlib.nullcontext(iter(items))

    monkeypatch.setattr(os, "scandir", scan_and_remove)
    with temporary.folder("mine") as mine:
        assert mine.is_dir()
    assert stays.is_dir()
