"""The DAG: its pods, its form, what it retries and what it skips. The provider builds the pods."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from environments import ROOT, in_airflow
from modelmill.runners.containers import RECIPE_VARIABLE
from modelmill.runners.parameters import path_of_word

DEPLOYMENT = {
    "store": "s3://models/line",
    "mounts": ["/mnt/{{ 6 * 7 }}"],
    "namespace": "models",
    "secrets": [{"name": "AWS_SECRET_ACCESS_KEY", "secret": "s3", "key": "secret"}],
    "release_secrets": [{"name": "SIGNING_KEY", "secret": "sign", "key": "key"}],
    "pools": {"cpu": {"node_selector": {"pool": "cpu"}, "tolerations": [{"key": "batch", "effect": "NoSchedule"}]}},
    "keep_pods": "never",
}


def _others(demo: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Recipes that came in each other's way."""
    punctuated = [{"name": name, "precision": "float32"} for name in ("a.b", "a__b", "a_b")]
    return {
        "one.yaml": {**demo, "name": "one", "publish": {"model": "a-b", "channel": "c"}},
        "two.yml": {**demo, "name": "two", "publish": {"model": "a", "channel": "b-c"}},
        "lanes.yaml": {**demo, "name": "lanes", "targets": punctuated},
        "twin.yaml": {**demo, "name": "one"},
        "my recipe (copy).yaml": {"name": "mine"},
        "both.yaml": {},
        "both.yml": {},
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `ask_airflow` says of a folder with one recipe that is right and one that is not."""
    folder = tmp_path_factory.mktemp("airflow")
    demo = yaml.safe_load((ROOT / "pipelines" / "recipes" / "demo.yaml").read_text("utf-8"))
    (folder / "recipes").mkdir()
    (folder / "recipes" / "demo.yaml").write_text(yaml.safe_dump(demo), "utf-8")
    wrong = {**demo, "name": "other", "data": {**demo["data"], "source": "file:rows"}}
    (folder / "recipes" / "other.yaml").write_text(yaml.safe_dump(wrong), "utf-8")
    (folder / "deployment.yaml").write_text(yaml.safe_dump(DEPLOYMENT), "utf-8")
    (folder / "others").mkdir()
    for file, recipe in _others(demo).items():
        (folder / "others" / file).write_text(yaml.safe_dump(recipe), "utf-8")
    found: dict[str, Any] = in_airflow(
        ROOT / "tests" / "orchestrators" / "ask_airflow.py",
        ROOT / "dags" / "modelmill_dag.py",
        folder / "others",
        home=folder / "home",
        MODELMILL_RECIPES=str(folder / "recipes"),
        MODELMILL_DEPLOYMENT=str(folder / "deployment.yaml"),
    )
    return found


def test_each_recipe_is_a_dag_and_a_wrong_one_says_why(answers: dict[str, Any]) -> None:
    assert answers["dags"] == ["demo", "other-is-wrong"]
    assert "modelmill push" in answers["wrong"]["other-is-wrong"]
    assert "data.source" in answers["wrong"]["other-is-wrong"]


def test_recipes_stay_out_of_each_others_way(answers: dict[str, Any]) -> None:
    found = answers["folders"]["others"]
    assert sorted(found["good"]) == ["lanes", "one", "two"]
    assert set(found["serialized"]) == set(found["good"]) | set(found["wrong"])
    (copy,) = [id for id in found["wrong"] if id.startswith("my-recipe-copy-")]
    assert set(found["wrong"]) == {copy, "both-is-wrong", "both-is-wrong-2", "twin-is-wrong"}
    assert "'one' is that of one.yaml, too" in found["wrong"]["twin-is-wrong"]
    assert len({id for id in found["groups"]["lanes"] if str(id).startswith("lane-")}) == 3


def test_channels_of_different_names_are_different_assets(answers: dict[str, Any]) -> None:
    good = answers["folders"]["others"]["good"]
    assert good["one"] == [["modelmill://a-b/c", "modelmill://a-b/c"]]
    assert good["two"] == [["modelmill://a/b-c", "modelmill://a/b-c"]]


def test_a_folder_that_is_not_there_is_said_with_the_variables_name(answers: dict[str, Any]) -> None:
    assert "there is no folder of recipes /nope" in answers["folders"]["/nope"]
    assert "MODELMILL_RECIPES" in answers["folders"]["/nope"]


@pytest.mark.parametrize("text", ["every day", "@nightly", "99 * * * *", "0 0 31 2 *"])
def test_a_wrong_schedule_is_said_and_leaves_the_recipes_to_be_started_by_hand(
    answers: dict[str, Any], text: str
) -> None:
    found = answers["schedules"][text]
    assert found["demo"] is None
    assert "other-is-wrong" in found
    said = found["MODELMILL_SCHEDULE-is-wrong"]
    assert repr(text) in said
    assert "where: MODELMILL_SCHEDULE" in said


@pytest.mark.parametrize("text", ["", "  ", "0 2 * * *", "@daily", "@quarterly", "@continuous", "@midnight"])
def test_a_schedule_is_as_airflow_has_it_and_an_empty_one_is_none(answers: dict[str, Any], text: str) -> None:
    assert answers["schedules"][text] == {"demo": text.strip() or None, "other-is-wrong": None}


def test_parsing_loads_nothing_heavy(answers: dict[str, Any]) -> None:
    assert answers["heavy"] == []
    assert answers["operators"]


def test_lanes_are_groups_and_a_publication_is_an_asset(answers: dict[str, Any]) -> None:
    assert "lane-cpu-int8" in answers["groups"]
    assert answers["outlets"] == ["modelmill://demo/staging"]


def test_a_field_that_the_form_does_not_offer_is_refused_by_name(answers: dict[str, Any]) -> None:
    assert answers["refusals"]["retrain_epochs"] == ""
    assert "'targets' is structural" in answers["refusals"]["targets"]
    assert "retrain_epochs" in answers["refusals"]["retrain_epoch"]


def test_the_form_refuses_what_the_recipe_would(answers: dict[str, Any]) -> None:
    assert answers["values"]["retrain_seed"] == ""
    assert all(answers["values"][name] for name in ("retrain_epochs", "gate_confidence", "retrain_precision"))


def test_publish_is_skipped_unless_the_verdicts_promote(answers: dict[str, Any]) -> None:
    assert answers["promotions"] == {"pass": "runs", "fail": "skipped", "inconclusive": "skipped"}


def _base(pod: dict[str, Any]) -> dict[str, Any]:
    base: dict[str, Any] = next(item for item in pod["spec"]["containers"] if item["name"] == "base")
    return base


def test_pods_hold_the_filled_in_command_and_texts_stay_texts(answers: dict[str, Any]) -> None:
    export = _base(answers["pods"]["export.cpu-int8"])["command"]
    assert export[export.index("--input") + 1] == "checkpoint=sha256:retrain#checkpoint"
    assert export[export.index("--run") + 1] == "demo-manual__2026-11-22T07:00:00+00:00"
    begin = _base(answers["pods"]["begin"])
    assert "publish.model={{ 6 * 7 }}" in begin["command"]
    assert "retrain.learning_rate=0.0003" in begin["command"]
    assert "publish.texts=false" in begin["command"]
    fetch = _base(answers["pods"]["fetch"])["command"]
    assert path_of_word(fetch[fetch.index("--mount") + 1]) == "/mnt/{{ 6 * 7 }}"
    (variable,) = [item for item in begin["env"] if item["name"] == RECIPE_VARIABLE]
    assert json.loads(base64.urlsafe_b64decode(variable["value"]))["name"] == "demo"


def test_a_path_is_mounted_as_it_is_whatever_stands_in_it(answers: dict[str, Any]) -> None:
    assert len(answers["mounted"]) == 2
    for path, found in answers["mounted"].items():
        assert found["mounts"] == [path]
        at = found["command"].index("--mount")
        assert path_of_word(found["command"][at + 1]) == path


def test_the_signing_key_reaches_publish_alone(answers: dict[str, Any]) -> None:
    holders = {name for name, pod in answers["pods"].items() if "SIGNING_KEY" in json.dumps(pod)}
    assert holders == {"publish"}
    values = [item.get("value") for pod in answers["pods"].values() for item in _base(pod)["env"]]
    assert not any(value and "secret" in value for value in values if value)


def test_parsing_takes_little_beyond_airflows_own_import(answers: dict[str, Any]) -> None:
    # The aim is one; the limit leaves room for tests that run beside this one.
    assert answers["seconds"] < 3


def test_the_dag_file_is_short() -> None:
    lines = Path(ROOT / "dags" / "modelmill_dag.py").read_text("utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 20
