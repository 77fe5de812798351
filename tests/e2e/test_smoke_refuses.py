"""A whole run whose model is too slow in a real server: refused, and told why; with more time allowed, promoted."""

from __future__ import annotations

from pathlib import Path

import pytest

from environments import triton_python
from modelmill.core import registry
from modelmill.core.local_store import LocalStore
from modelmill.runners.result import Status
from modelmill.serving.server import VARIABLE
from whole_line import make_recipe, run_in_this_process


@pytest.mark.slow
def test_a_failing_smoke_test_refuses_promotion_and_leaves_the_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(triton_python().parents[1]))
    store = LocalStore(tmp_path / "store")
    recipe = make_recipe(tmp_path, publish={"model": "small", "channel": "staging", "smoke": "required"})
    refused = run_in_this_process(recipe, store, "gate.max_served_p95_ratio=0.001")
    assert (refused.status, refused.status.exit_code) == (Status.REFUSED, 3)
    assert "95th percentile of one text's time" in refused.targets["cpu-int8"].reasons[0]
    assert registry.show_channel(store, "small", "staging") is None
    allowed = run_in_this_process(recipe, store, "gate.max_served_p95_ratio=1000")
    assert allowed.status is Status.PROMOTED
    bundle = Path(str(allowed.bundle))
    assert (bundle / "serving/cpu-int8/small/1/model.py").is_file()
    assert '"state": "answered"' in (bundle / "evidence.json").read_text("utf-8")
    smoke = next(row for row in allowed.steps if row.part == "smoke")
    assert smoke.cached
    assert smoke.facts["differing"] == 0
