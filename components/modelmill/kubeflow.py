"""The steps as Kubeflow components, to call in a pipeline of your own.

Each takes and makes artifacts that the pipeline carries, and needs neither a recipe nor a store. Importing this module
imports kfp. ``MODELMILL_IMAGE`` names the image of all of them, ``task.set_container_image(…)`` that of one.
"""

from modelmill.steps.calibrate_quantize.component import calibrate_quantize, calibrate_quantize_choose
from modelmill.steps.evaluate.component import evaluate_baseline, evaluate_candidate, evaluate_measure, evaluate_smoke
from modelmill.steps.export.component import export
from modelmill.steps.fetch.component import fetch
from modelmill.steps.gate.component import gate
from modelmill.steps.optimize.component import optimize
from modelmill.steps.publish.component import publish
from modelmill.steps.retrain.component import retrain

__all__ = [
    "calibrate_quantize",
    "calibrate_quantize_choose",
    "evaluate_baseline",
    "evaluate_candidate",
    "evaluate_measure",
    "evaluate_smoke",
    "export",
    "fetch",
    "gate",
    "optimize",
    "publish",
    "retrain",
]
