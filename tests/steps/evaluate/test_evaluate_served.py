"""What the channel serves answers the rows that judge the candidate, and what cannot be asked is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lane_artifacts import LABELS, TASK, judge_lane, promoted_in, publish_lanes, write_lane_model, write_lane_rows
from modelmill.core import channels, manifest, promotable, registry
from modelmill.core.contract import PortType
from modelmill.core.history import HISTORY
from modelmill.core.local_store import LocalStore
from modelmill.core.predictions import Predictions, array_of, read_predictions
from modelmill.core.progress import SilentProgress
from modelmill.core.served import Opponent, Standing
from modelmill.runners import container
from modelmill.steps.evaluate.contract import CANDIDATE, CandidateSettings, ServedSettings
from modelmill.targets.base import Runtime

CHAMPION, REFERENCE = Opponent.CHAMPION, Opponent.REFERENCE


@dataclass(frozen=True)
class Made:
    """Bundles by the seed of their model, the candidate's model, and the rows. Read-only."""

    bundles: dict[int, Path]
    model: Path
    rows: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Made:
    work = tmp_path_factory.mktemp("served")
    bundles = {
        seed: publish_lanes(work / f"b{seed}", {"cpu-int8": judge_lane(work / f"l{seed}", tiny_bert, seed=seed)})
        for seed in (0, 1)
    }
    return Made(bundles, write_lane_model(work / "model", tiny_bert, seed=2), write_lane_rows(work / "rows"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, directory: Path, type: PortType) -> str:
    found = manifest.build(directory, type)
    store.put_artifact(directory, found, SilentProgress())
    return found.digest


def asked(*against: Opponent, lane: str = "cpu-int8") -> CandidateSettings:
    served = None
    if against:
        served = ServedSettings(model="banking", channel="staging", lane=lane, against=list(against))
    return CandidateSettings(task=TASK, runtime=Runtime.ONNXRUNTIME, served=served)


def prepared(
    store: LocalStore, made: Made, settings: CandidateSettings, model: Path | None = None
) -> container.Prepared:
    inputs = {
        "model": put(store, model or made.model, PortType.MODEL),
        "rows": put(store, made.rows, PortType.ROWS),
    }
    return container.prepare(CANDIDATE, settings, inputs, SilentProgress(), store)


def answers(
    store: LocalStore, made: Made, settings: CandidateSettings, model: Path | None = None
) -> tuple[Predictions, dict[str, np.ndarray]]:
    found = container.run_step(store, prepared(store, made, settings, model), SilentProgress())
    return read_predictions(store.get_artifact(found.record.outputs["predictions"], SilentProgress()))


def pin_reference(store: LocalStore, bundle: str) -> None:
    record = promotable.find_named(store, "banking", bundle)
    channels.refer(store, "banking", "staging", record, by="ada", why="the last good one")


def test_without_a_bound_the_registry_is_not_looked_at(store: LocalStore, made: Made) -> None:
    before = prepared(store, made, asked())
    promoted_in(store, made.bundles[0])
    after = prepared(store, made, asked())
    assert after.key == before.key
    assert set(after.inputs) == {"model", "rows"}


def test_champion_and_reference_say_what_they_say_as_candidates(store: LocalStore, made: Made) -> None:
    first = promoted_in(store, made.bundles[0])
    pin_reference(store, first)
    second = promoted_in(store, made.bundles[1])
    document, arrays = answers(store, made, asked(CHAMPION, REFERENCE))
    for opponent, bundle, seed in ((CHAMPION, second, 1), (REFERENCE, first, 0)):
        found = document.served[opponent]
        assert (found.standing, found.bundle) == (Standing.PREDICTED, bundle)
        _, alone = answers(store, made, asked(), model=made.bundles[seed].parent / f"l{seed}" / "model")
        assert np.array_equal(arrays[array_of(opponent)], alone["predicted"])
        assert np.array_equal(arrays["reference"], alone["reference"])
    assert not np.array_equal(arrays["predicted_champion"], arrays["predicted_reference"])


def test_another_champion_is_another_step_and_another_channel_is_not(store: LocalStore, made: Made) -> None:
    promoted_in(store, made.bundles[0])
    first = prepared(store, made, asked(CHAMPION))
    promoted_in(store, made.bundles[1], channel="production")
    assert prepared(store, made, asked(CHAMPION)).key == first.key
    promoted_in(store, made.bundles[1])
    assert prepared(store, made, asked(CHAMPION)).key != first.key


def test_a_step_senses_anew_what_its_settings_held(store: LocalStore, made: Made) -> None:
    promoted_in(store, made.bundles[0])
    first = prepared(store, made, asked(CHAMPION))
    assert isinstance(first.settings, CandidateSettings)
    assert prepared(store, made, first.settings).key == first.key
    promoted_in(store, made.bundles[1])
    assert prepared(store, made, first.settings).key == prepared(store, made, asked(CHAMPION)).key


def test_an_empty_channel_has_no_champion_and_no_reference(store: LocalStore, made: Made) -> None:
    document, arrays = answers(store, made, asked(CHAMPION, REFERENCE))
    assert {found.standing for found in document.served.values()} == {Standing.NONE}
    assert set(arrays) == {"outputs", "predicted", "reference"}


def test_the_candidates_own_model_is_not_asked_again(store: LocalStore, made: Made) -> None:
    promoted_in(store, made.bundles[0])
    document, arrays = answers(store, made, asked(CHAMPION), model=made.bundles[0].parent / "l0" / "model")
    assert document.served[CHAMPION].standing is Standing.SAME
    assert "predicted_champion" not in arrays


def test_a_lane_that_the_bundle_lacks_is_told(store: LocalStore, made: Made) -> None:
    promoted_in(store, made.bundles[0])
    document, _ = answers(store, made, asked(CHAMPION, lane="gpu"))
    found = document.served[CHAMPION]
    assert found.standing is Standing.ABSENT
    assert found.problem == "its bundle has no lane gpu, but cpu-int8"


@pytest.mark.parametrize("gone", ["artifact", "record"])
def test_a_bundle_that_was_deleted_is_told_and_ends_nothing(store: LocalStore, made: Made, gone: str) -> None:
    digest = promoted_in(store, made.bundles[0])
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    if gone == "artifact":
        store.delete_artifact(record.artifact)
    else:
        store.delete(f"registry/banking/bundles/{digest.removeprefix('sha256:')}.json")
    document, _ = answers(store, made, asked(CHAMPION))
    found = document.served[CHAMPION]
    assert (found.standing, found.bundle) == (Standing.GONE, digest)
    assert f"the bundle {digest} is " in str(found.problem)


def test_labels_in_another_order_are_renumbered_and_other_labels_are_told(
    store: LocalStore, made: Made, tiny_bert: Path, tmp_path: Path
) -> None:
    promoted_in(store, made.bundles[0])
    turned = write_lane_model(tmp_path / "turned", tiny_bert, seed=2, labels=LABELS[::-1])
    _, straight = answers(store, made, asked(CHAMPION))
    _, arrays = answers(store, made, asked(CHAMPION), model=turned)
    assert np.array_equal(arrays["predicted_champion"], 2 - straight["predicted_champion"])

    other = write_lane_model(tmp_path / "other", tiny_bert, seed=2, labels=[*LABELS[:2], "gamma", "delta"])
    document, _ = answers(store, made, asked(CHAMPION), model=other)
    found = document.served[CHAMPION]
    assert found.standing is Standing.UNLIKE
    assert found.problem == "its labels are others: it lacks delta"


def test_what_a_candidate_was_held_against_is_no_ancestor_of_it(store: LocalStore, made: Made) -> None:
    promoted_in(store, made.bundles[0])
    found = container.run_step(store, prepared(store, made, asked(CHAMPION)), SilentProgress())
    told = store.read_manifest(found.record.outputs["predictions"])
    assert told is not None
    assert told.made_by is not None
    assert [step["step"] for step in told.made_by[HISTORY]["steps"].values()] == ["evaluate-candidate"]
    assert "champion" in found.record.inputs
