"""S3 that goes away at the start, in the middle and at the end of an orchestrated run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flaky_proxy import flaky_proxy
from modelmill import recipe as recipes
from modelmill.core import records, registry
from modelmill.core.stores import open_store
from modelmill.deployment import Deployment
from modelmill.line import Job
from modelmill.runners.containers import describe
from modelmill.runners.result import RunDocument
from orchestrate import Orchestrated, orchestrate
from seaweed import Seaweed
from whole_line import make_recipe

pytestmark = pytest.mark.slow
LEAVES: dict[str, Callable[[str, str], bool]] = {
    "begin": lambda method, path: True,
    "export.cpu-int8": lambda method, path: method == "PUT" and "/artifacts/" in path,
    "publish": lambda method, path: method == "PUT" and "/channels/" in path,
}
"""The task in which S3 leaves, and the request at which it does: at once, at its output, at the channel."""


def test_a_run_says_what_is_away_and_the_next_one_goes_on(
    s3_server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    recipe = make_recipe(tmp_path)
    value = yaml.safe_load(recipe.read_text("utf-8"))
    value["model"]["source"], value["data"]["source"] = f"file:{tmp_path / 'model'}", f"file:{tmp_path / 'rows'}"
    recipe.write_text(yaml.safe_dump(value), "utf-8")
    uri = f"s3://{s3_server.bucket}/away"
    described = describe(Job(recipes.load(recipe), Deployment(store=uri, mounts=[str(tmp_path)])))
    store = open_store(uri)
    with flaky_proxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)

        def run(name: str, task: str | None) -> Orchestrated:
            def leave(before: str) -> None:
                if before == task:
                    proxy.leave_at = LEAVES[task]

            found = orchestrate(described, tmp_path, name, before=leave)
            proxy.come_back()
            return found

        for task in LEAVES:
            left = run(f"left-at-{task}", task)
            # The last task runs after a failed one, too, and cannot write down how the run ended.
            assert set(left.errors) == {task, "finish"}
            assert all("cannot be reached" in said for said in left.errors.values())
            assert registry.show_channel(store, "small", "staging") is None
        ended = run("last", None)
    assert ended.errors == {}
    assert ended.pointers["finish"] == "promoted"
    record = records.read_run(store, "last")
    assert record is not None
    document = RunDocument.model_validate(record.document)
    assert all(row.cached for row in document.steps)
    channel = registry.show_channel(store, "small", "staging")
    assert channel is not None
    assert channel.bundle == document.bundle_digest
