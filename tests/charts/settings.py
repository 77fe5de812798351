"""Values in which each pair of settings of seven switches occurs: an orthogonal array of eight rows."""

from __future__ import annotations

from typing import Any

import yaml

from helm import ROOT

KUBERNETES_API = {"peers": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [6443]}
_DEMO = (ROOT / "pipelines" / "recipes" / "demo.yaml").read_text("utf-8")
_SWITCHES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {"kubeflow": {"enabled": True}}),
    ({}, {"airflow": {"enabled": True, "serviceAccounts": ["airflow-scheduler"]}}),
    (
        {
            "serviceAccounts": {
                "work": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/work"}},
                "release": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/release"}},
            }
        },
        {
            "imagePullSecrets": [{"name": "registry"}],
            "deployment": {
                "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "work", "key": "secret"}],
                "release_secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "release", "key": "secret"}],
            },
        },
    ),
    (
        {"networkPolicy": {"enabled": False}},
        {"networkPolicy": {"enabled": True, "kubernetesApi": KUBERNETES_API, "notify": KUBERNETES_API}},
    ),
    (
        {},
        {
            "deployment": {
                "pools": {"gpu": {"node_selector": {"pool": "gpu"}, "tolerations": [{"key": "nvidia.com/gpu"}]}},
                "steps": {"retrain": {"resources": {"cpu": "8", "memory": "16Gi"}}},
            }
        },
    ),
    (
        {},
        {
            "quota": {"pods": 50, "requests.cpu": "64", "limits.memory": "512Gi", "requests.nvidia.com/gpu": 4},
            "limitRange": {"default": {"cpu": "1", "memory": "1Gi"}, "max": {"memory": "64Gi"}},
        },
    ),
    ({"namespace": {"create": True}}, {"recipes": {"demo": yaml.safe_load(_DEMO), "text": _DEMO}}),
)
# Columns are all sums modulo 2 of three bits, so that any two of them take each pair of values twice.
ROWS = [tuple((row & mask).bit_count() % 2 for mask in range(1, 8)) for row in range(8)]


def values(row: tuple[int, ...]) -> dict[str, Any]:
    """The values of one row."""
    merged: dict[str, Any] = {}
    for switch, setting in zip(_SWITCHES, row, strict=True):
        _merge(merged, switch[setting])
    return merged


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            into[name] = {**into[name]}
            _merge(into[name], value)
        else:
            into[name] = value
