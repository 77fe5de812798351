"""Writers of one Git branch in processes of their own: run as a script, so that no library's threads are forked.

``git_writers.py STORE REMOTE same|own BUNDLE...`` lets five writers make four promotions each, of one channel or each
of its own, of bundles that are registered, and prints what became of each as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from modelmill.core import channels
from modelmill.core.progress import SilentProgress
from modelmill.core.stores import open_store
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.gitops import Patience, release
from modelmill.steps.publish.gitops_settings import GitOps

WRITERS, PROMOTIONS = 5, 4


def _promote(uri: str, remote: str, channel: str, bundles: list[str]) -> list[list[object]]:
    """Move the channel and commit, once for each bundle: (move, outcome, words)."""
    store, found = open_store(uri), []
    for bundle in bundles:
        moved = channels.publish(store, "banking", channel, bundle, f"run of {os.getpid()}")
        done = release(
            store,
            GitOps(remote=remote),
            "banking",
            channel,
            SilentProgress(),
            Credentials(),
            Patience(away_seconds=0.1),
        )
        found.append([moved.channel.number, done.outcome.value, done.words])
    return found


def main(uri: str, remote: str, kind: str, bundles: list[str]) -> list[list[object]]:
    """What became of every promotion."""
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for writer in range(WRITERS):
            process = os.fork()
            if process == 0:
                channel = "staging" if kind == "same" else f"lane-{writer}"
                # Every writer begins elsewhere, so that the channel's bundle changes all the time.
                turned = [bundles[(writer + turn) % len(bundles)] for turn in range(PROMOTIONS)]
                found = _promote(uri, remote, channel, turned)
                (Path(folder) / str(writer)).write_text(json.dumps(found))
                os._exit(0)
            started.append(process)
        ended = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
        assert ended == [0] * WRITERS, ended
        return [row for writer in range(WRITERS) for row in json.loads((Path(folder) / str(writer)).read_text())]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])))
