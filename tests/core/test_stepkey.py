from __future__ import annotations

from typing import Annotated, Any

import pytest

from modelmill.core.contract import Closed, KeyOn, StepContract, Unkeyed
from modelmill.core.errors import UsageError
from modelmill.core.hardware import cpu
from modelmill.core.stepkey import keyed, package_versions, step_key


class _Source(Closed):
    location: Annotated[str, Unkeyed()]
    pin: str


class _Settings(Closed):
    source: _Source
    rows: int = 3


class _Ports:
    pass


def _contract(**changes: Any) -> StepContract:
    fields: dict[str, Any] = {
        "name": "fetch", "version": 1, "summary": "", "inputs": _Ports, "outputs": _Ports, "settings": _Settings,
        "function": "x:y",
    }  # fmt: skip
    return StepContract(**{**fields, **changes})


SETTINGS = _Settings(source=_Source(location="/home/a/data", pin="sha256:1"))
INPUTS = {"rows": "sha256:2"}


def _key(settings: _Settings = SETTINGS, inputs: Any = INPUTS, versions: Any = None, **changes: Any) -> str:
    machine = cpu().model_copy(update=changes.pop("machine", {}))
    return step_key(_contract(**changes), settings, inputs, machine, versions or {"torch": "1"})


def test_where_a_source_lay_is_not_in_the_key() -> None:
    moved = _Settings(source=_Source(location="/srv/b/data", pin="sha256:1"))
    assert keyed(moved) == {"source": {"pin": "sha256:1"}, "rows": 3}
    assert _key(moved) == _key()


def test_whatever_shapes_the_output_is_in_the_key() -> None:
    keys = [
        _key(),
        _key(_Settings(source=_Source(location="/home/a/data", pin="sha256:9"))),
        _key(_Settings(source=SETTINGS.source, rows=4)),
        _key(inputs={"rows": "sha256:3"}),
        _key(inputs={"rows": {"lane": "sha256:2"}}),
        _key(versions={"torch": "2"}),
        _key(version=2),
        _key(part="baseline"),
        _key(name="retrain"),
        _key(key_on=frozenset({KeyOn.THREADS})),
        _key(key_on=frozenset({KeyOn.INSTRUCTION_SET})),
        _key(key_on=frozenset({KeyOn.HARDWARE_CLASS})),
    ]
    assert len(set(keys)) == len(keys)


def test_threads_are_in_the_key_only_where_the_contract_says_so() -> None:
    assert _key(machine={"threads": 7}) == _key()
    on_threads = {"key_on": frozenset({KeyOn.THREADS})}
    assert _key(machine={"threads": 7}, **on_threads) != _key(machine={"threads": 8}, **on_threads)
    on_class = {"key_on": frozenset({KeyOn.HARDWARE_CLASS})}
    assert _key(machine={"model": "other"}, **on_class) != _key(**on_class)


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="no-such-distribution"):
        package_versions(("no-such-distribution",))
