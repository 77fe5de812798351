"""The serving files of a bundle: covered, checked, there for each passed lane, and the ones that were tried."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from lane_artifacts import judge_lane, publish_lanes
from modelmill.core import bundle as bundles
from modelmill.core.errors import InputError, ModelError
from modelmill.core.model import read_model


def test_each_passed_lane_has_a_model_repository_of_its_own(bundle: Path) -> None:
    found = sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("serving/**/*") if path.is_file())
    assert found == [
        "lanes/cpu-float/serving/cpu-float/banking/1/__pycache__",
        "lanes/cpu-float/serving/cpu-float/banking/1/model.py",
        "lanes/cpu-float/serving/cpu-float/banking/config.pbtxt",
        "serving/cpu-int8/banking/1/__pycache__",
        "serving/cpu-int8/banking/1/model.py",
        "serving/cpu-int8/banking/config.pbtxt",
    ]
    document = bundles.read_bundle(bundle)
    assert set(found) <= set(document.files)
    bundles.verify(bundle)


@pytest.mark.parametrize("lane", [".", "lanes/cpu-float"])
def test_the_configuration_leads_to_the_model_that_lies_there_once(bundle: Path, lane: str) -> None:
    place = bundle / lane
    config = next(place.glob("serving/*/*/config.pbtxt"))
    assert '"artifact" value { string_value: "../../.." }' in config.read_text("utf-8")
    assert (config.parent / "../../..").resolve() == place.resolve()
    graph = read_model(place).components["model"].file
    assert not list(place.glob(f"serving/**/{graph}"))


@pytest.mark.parametrize("name", ["serving/cpu-int8/banking/config.pbtxt", "serving/cpu-int8/banking/1/model.py"])
def test_a_serving_file_that_was_changed_is_found(bundle: Path, name: str, tmp_path: Path) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(bundle, copied)
    with (copied / name).open("a") as stream:
        stream.write("\n")
    with pytest.raises(InputError, match=name):
        bundles.verify(copied)


def test_two_targets_of_one_model_share_it_and_have_each_its_serving_files(
    judged: Mapping[str, Mapping[str, Path]], tiny_bert: Path, tmp_path: Path
) -> None:
    other = judge_lane(tmp_path / "other", tiny_bert, "cpu-other")
    made = publish_lanes(tmp_path / "b", {"cpu-int8": judged["cpu-int8"], "cpu-other": other})
    assert sorted(path.name for path in (made / "serving").iterdir()) == ["cpu-int8", "cpu-other"]
    assert not (made / "lanes").exists()
    bundles.verify(made)


def test_the_evidence_says_that_nothing_was_tried(bundle: Path) -> None:
    lanes = json.loads((bundle / "evidence.json").read_bytes())["lanes"]
    assert {lane["smoke"]["state"] for lane in lanes.values()} == {"not run"}


def test_serving_files_other_than_those_that_were_tried_are_refused(
    judged: Mapping[str, Mapping[str, Path]], tmp_path: Path
) -> None:
    verdict = tmp_path / "verdict"
    shutil.copytree(judged["cpu-int8"]["verdict"], verdict)
    document = json.loads((verdict / "verdict.json").read_bytes())
    document["smoke"]["plan"]["threads"] += 1
    (verdict / "verdict.json").write_text(json.dumps(document))
    with pytest.raises(ModelError, match="not those that its smoke test was about"):
        publish_lanes(tmp_path / "b", {"cpu-int8": {**judged["cpu-int8"], "verdict": verdict}})
