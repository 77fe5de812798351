"""The image that a step's component runs in where its pipeline names no other."""

from __future__ import annotations

import os

VARIABLE = "MODELMILL_IMAGE"
"""Names another one for all components, for the process that compiles a pipeline."""
CPU_IMAGE = os.environ.get(VARIABLE) or "modelmill-cpu:0.1.0"
