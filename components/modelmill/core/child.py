"""Python processes that a step starts."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path

import modelmill


def environment() -> dict[str, str]:
    """This process's environment, in which a child finds the package where this process did.

    Also where only ``sys.path`` says so.
    """
    source = str(Path(modelmill.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def lines_from_parent() -> queue.Queue[str]:
    """In a child: the lines of stdin, as they come.

    When the parent is gone, however it ended, this process ends at once: nobody waits for what it does.
    """
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        # Its own: an interpreter that ends aborts where a thread still reads from sys.stdin.
        with os.fdopen(os.dup(0), encoding="utf-8") as stdin:
            for line in stdin:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, name="lifeline", daemon=True).start()
    return lines
