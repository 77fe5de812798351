"""A channel that moved on while a run judged: on disk and on S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from lane_artifacts import judge_lane, promoted_in, publish_lanes, publish_settings
from modelmill.core import channels, manifest, registry
from modelmill.core.bundle import read_bundle
from modelmill.core.contract import PortType
from modelmill.core.errors import ChampionError
from modelmill.core.evidence import Against, LaneEvidence
from modelmill.core.served import Opponent, Standing
from modelmill.core.store import Store
from modelmill.steps.publish.promote import promote
from stored_things import SILENT


def challenger(work: Path, lane: dict[str, Path], champion: str | None) -> Path:
    """The bundle of a lane that was held against ``champion``."""
    path = lane["verdict"] / "verdict.json"
    standing = Standing.PREDICTED if champion else Standing.NONE
    told = Against(standing=standing, bundle=champion, words="The champion answered the same rows.")
    evidence = LaneEvidence.model_validate_json(path.read_bytes()).model_copy(
        update={"against": {Opponent.CHAMPION: told}}
    )
    manifest.write_json(path, evidence.model_dump(mode="json"))
    return publish_lanes(work, {"cpu-int8": lane})


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> list[dict[str, Path]]:
    """Three passed lanes, each with a model of its own."""
    work = tmp_path_factory.mktemp("champions")
    return [judge_lane(work / str(seed), tiny_bert, seed=seed) for seed in range(3)]


def named(store: Store) -> list[str]:
    """What the channel has named, the oldest first."""
    shown = registry.show_channel(store, "banking", "staging")
    return [move.bundle for move in shown.history] if shown else []


def test_a_bundle_judged_against_another_champion_is_registered_and_not_promoted(
    store: Store, lanes: list[dict[str, Path]], tmp_path: Path
) -> None:
    first = promoted_in(store, publish_lanes(tmp_path / "first", {"cpu-int8": lanes[0]}))
    late = challenger(tmp_path / "late", lanes[1], champion=first)
    other = promoted_in(store, publish_lanes(tmp_path / "other", {"cpu-int8": lanes[2]}))
    made = manifest.build(late, PortType.BUNDLE)
    store.put_artifact(late, made, SILENT)
    outputs = {"bundle": (store.get_artifact(made.digest, SILENT), made.digest)}
    digest = read_bundle(late).digest
    with pytest.raises(ChampionError) as caught:
        promote(store, outputs, publish_settings(), SILENT)
    assert caught.value.exit_code == 5
    assert caught.value.what == (
        f"the channel staging of banking names {other} by now, and the lane cpu-int8 of the bundle {digest} was held "
        f"against {first}: the channel stays as it is"
    )
    assert "run the recipe again" in str(caught.value.fix)
    assert named(store) == [first, other]
    # Nothing is lost: a person may take it, and a channel that went back to its champion, too.
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    assert f"channel promote banking staging {digest[:19]}" in str(caught.value.fix)
    previous = registry.find_bundle(store, "banking", first)
    assert previous is not None
    channels.roll_back(store, "banking", "staging", previous, by="ada", why=None, progress=SILENT)
    channels.unpin(store, "banking", "staging", by="ada", why=None)
    assert promote(store, outputs, publish_settings(), SILENT).facts["moved"] is True
    assert promote(store, outputs, publish_settings(), SILENT).facts["moved"] is False
    assert named(store)[-1] == digest


def test_a_bundle_judged_against_nothing_does_not_replace_what_came_meanwhile(
    store: Store, lanes: list[dict[str, Path]], tmp_path: Path
) -> None:
    late = challenger(tmp_path / "late", lanes[1], champion=None)
    first = promoted_in(store, publish_lanes(tmp_path / "first", {"cpu-int8": lanes[0]}))
    with pytest.raises(ChampionError, match="was held against nothing, since nothing was promoted yet"):
        promoted_in(store, late)
    assert named(store) == [first]


def test_a_pin_holds_back_what_was_judged_against_another_champion(
    local_store: Store, lanes: list[dict[str, Path]], tmp_path: Path
) -> None:
    first = promoted_in(local_store, publish_lanes(tmp_path / "first", {"cpu-int8": lanes[0]}))
    late = challenger(tmp_path / "late", lanes[1], champion=first)
    other = promoted_in(local_store, publish_lanes(tmp_path / "other", {"cpu-int8": lanes[2]}))
    record = registry.find_bundle(local_store, "banking", other)
    assert record is not None
    channels.roll_back(local_store, "banking", "staging", record, by="ada", why=None, progress=SILENT)
    promoted_in(local_store, late)
    shown = registry.show_channel(local_store, "banking", "staging")
    assert shown is not None
    assert (shown.bundle, shown.history[-1].offered) == (other, read_bundle(late).digest)
