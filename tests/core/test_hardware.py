from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelmill.core import hardware


def _cgroup(tmp_path: Path, files: dict[str, str], membership: str) -> tuple[Path, Path]:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    member = tmp_path / "membership"
    member.write_text(membership)
    return tmp_path / "cgroup", member


@pytest.mark.parametrize(
    ("files", "membership", "expected"),
    [
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({"cpu.max": "200000 100000"}, "0::/\n", 2),
        ({"cpu.max": "150000 100000"}, "0::/\n", 1),
        ({"cpu.max": "50000 100000"}, "0::/\n", 1),
        ({"pod/cpu.max": "400000 100000", "pod/box/cpu.max": "max 100000"}, "0::/pod/box\n", 4),
        ({"pod/cpu.max": "400000 100000", "pod/box/cpu.max": "300000 100000"}, "0::/pod/box\n", 3),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n", None),
        ({}, "", None),
    ],
)
def test_the_tightest_quota_of_all_cgroups_counts(
    tmp_path: Path, files: dict[str, str], membership: str, expected: int | None
) -> None:
    assert hardware._cgroup_quota(*_cgroup(tmp_path, files, membership)) == expected


def test_threads_follow_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert hardware.threads() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_hardware_class_tells_machines_apart_and_is_one_token() -> None:
    here = hardware.cpu()
    assert here.hardware_class == hardware.cpu().hardware_class
    assert " " not in here.hardware_class
    assert here.hardware_class.endswith(f"/{here.threads}t")
    other = here.model_copy(update={"threads": here.threads + 1})
    assert other.hardware_class != here.hardware_class
