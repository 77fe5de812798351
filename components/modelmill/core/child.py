"""Python processes that a step starts."""

from __future__ import annotations

import os
from pathlib import Path

import modelmill


def environment() -> dict[str, str]:
    """This process's environment, in which a child finds the package where this process did.

    Also where only ``sys.path`` says so.
    """
    source = str(Path(modelmill.__file__).parents[1])
    path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}
