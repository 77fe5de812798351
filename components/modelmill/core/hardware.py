"""The machine a step runs on: threads it may use, instruction set, hardware class."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from modelmill.core.contract import Closed
from modelmill.core.errors import HardwareError

# What the kernels of torch, oneDNN, MLAS and OpenVINO dispatch on; other flags do not change bytes or speed.
_DISPATCHED = (
    "avx", "avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip

_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Any of them: the processor multiplies bf16 (the last is Arm's)."""


class Hardware(Closed):
    """What a measurement is evidence for."""

    device: str = Field(description="cpu or gpu")
    model: str = Field(
        description="the processor's name, with family, model and stepping where the system tells; a GPU's with its "
        "driver's version"
    )
    instruction_set: list[str] = Field(description="flags that numeric kernels dispatch on, sorted")
    threads: int = Field(ge=1, description="processors this process may use: affinity and the cgroup's limit")

    @property
    def hardware_class(self) -> str:
        """One token: equal tokens, comparable measurements."""
        name = re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")
        if self.device == "gpu":
            return f"{self.device}/{name}"
        best = [flag for flag in ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp")
                if flag in self.instruction_set][:1]  # fmt: skip
        return "/".join([self.device, name, best[0] if best else "baseline", f"{self.threads}t"])


def require_class(declared: str | None, found: str) -> None:
    """Check the machine against the declared hardware class; None declares nothing.

    Raises:
        HardwareError: They differ.
    """
    if declared is not None and declared != found:
        what = f"the target declares the hardware class {declared}, and this machine is {found}"
        fix = "run the step on the declared hardware, or declare this one: what is measured stands for it alone"
        raise HardwareError(what, where="targets: hardware_class", fix=fix)


def computes_bf16(instruction_set: Sequence[str]) -> bool:
    """Whether a processor with these flags multiplies bf16."""
    return not _BF16.isdisjoint(instruction_set)


def require_bf16(instruction_set: Sequence[str]) -> None:
    """Check that a processor with these flags multiplies bf16, where nothing else is allowed.

    Raises:
        HardwareError: It does not.
    """
    if computes_bf16(instruction_set):
        return
    what = f"this processor does not compute bf16: it has none of {', '.join(sorted(_BF16))}"
    fix = "run on a processor that has one, or allow float32 or int8 for this target"
    raise HardwareError(what, where="targets.precision", fix=fix)


def threads() -> int:
    """Processors this process may use: the smaller of its affinity and its cgroup's CPU quota.

    The host's count is not it: a container with ``--cpus 2`` on 64 cores runs slowest with 64 threads.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _cgroup_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
    return max(1, min(allowed, quota)) if quota else max(1, allowed)


def _cgroup_quota(root: Path, membership: Path) -> int | None:
    """Whole CPUs of the tightest quota from this process's cgroup up to the root (v2, then v1), or None."""
    limits: list[float] = []
    try:
        relative = next(
            (line.split(":", 2)[2] for line in membership.read_text().splitlines() if line.startswith("0::")),
            "/",
        )
    except OSError:
        relative = "/"
    here = root / relative.strip("/")
    for folder in [here, *here.parents]:
        if root != folder and root not in folder.parents:
            break
        parts = _words(folder / "cpu.max")
        if len(parts) == 2 and parts[0] != "max":
            limits.append(int(parts[0]) / int(parts[1]))
    quota, period = _words(root / "cpu/cpu.cfs_quota_us"), _words(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        limits.append(int(quota[0]) / int(period[0]))
    return max(1, int(min(limits))) if limits else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


@functools.cache
def _processor() -> tuple[str, tuple[str, ...]]:
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = fields.get("model name") or fields.get("CPU implementer") or platform.processor() or platform.machine()
    numbers = [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return " ".join([name, *(["f" + "-".join(numbers)] if numbers else [])]), tuple(sorted(flags & set(_DISPATCHED)))


def cpu() -> Hardware:
    """The processor as this process sees it."""
    name, flags = _processor()
    return Hardware(device="cpu", model=name, instruction_set=list(flags), threads=threads())


def gpu(driver: Path = Path("/proc/driver/nvidia")) -> Hardware | None:
    """The first NVIDIA GPU as its driver tells of it, beside the processor that feeds it; None where there is none.

    Args:
        driver: The driver's folder: ``gpus/*/information`` and ``version``.
    """
    name = next((found for file in sorted(driver.glob("gpus/*/information")) if (found := _model_of(file))), None)
    if name is None:
        return None
    version = next((word for word in _words(driver / "version") if re.fullmatch(r"\d+(\.\d+)+", word)), "unknown")
    return cpu().model_copy(update={"device": "gpu", "model": f"{name} driver {version}"})


def _model_of(information: Path) -> str | None:
    try:
        lines = information.read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), None)
