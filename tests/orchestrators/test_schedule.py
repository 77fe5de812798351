"""`modelmill schedule`: kfp's real client against a server that speaks its API."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from environments import ROOT
from modelmill import deployment as deployments
from modelmill import recipe as recipes
from modelmill.cli import main as command
from modelmill.core.errors import OrchestratorError, UsageError
from modelmill.line import Job
from modelmill.runners import kubeflow
from modelmill.runners.containers import describe
from modelmill.runners.cron import parse
from modelmill.runners.kubeflow_client import connect
from modelmill.runners.parameters import parameters_of
from modelmill.runners.schedules import Outcome, Schedules, Wanted, chosen

pytest.importorskip("kfp")
from kubeflow_server import Pipelines, kubeflow_server

DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"
DEPLOYMENT = ROOT / "pipelines" / "deployment.yaml"


@pytest.fixture
def server() -> Iterator[Pipelines]:
    with kubeflow_server() as state:
        yield state


@pytest.fixture(autouse=True)
def _no_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the context file of whoever runs the tests out of kfp's client."""
    monkeypatch.setattr("kfp.client.Client._LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], server: Pipelines) -> Say:
    """Runs ``modelmill schedule …`` against the server; (exit code, stdout, stderr)."""
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modelmill", "schedule", *(str(item) for item in arguments)])
        capsys.readouterr()
        try:
            command.main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return code, told.out, told.err

    return run


def _create(say: Say, *arguments: str | Path, cron: str = "0 2 * * *") -> dict[str, Any]:
    code, out, err = say("create", DEMO, "--deployment", DEPLOYMENT, "--cron", cron, "--json", *arguments)
    assert code == 0, err
    made: dict[str, Any] = json.loads(out)
    return made


def test_a_schedule_is_made_shown_and_deleted(server: Pipelines, say: Say) -> None:
    made = _create(say, "--set", "retrain.epochs=1", "--set", "publish.channel=production")
    assert made["outcome"] == "created"
    (stored,) = server.recurring
    assert stored["trigger"]["cron_schedule"]["cron"] == "0 0 2 * * *"
    assert stored["runtime_config"]["parameters"] == {"retrain_epochs": 1, "publish_channel": "production"}
    assert stored["no_catchup"] is True
    assert stored["max_concurrency"] == "1"
    assert stored["service_account"] == "modelmill-work"
    assert [item["display_name"] for item in server.experiments] == ["demo"]
    assert [item["display_name"] for item in server.pipelines] == ["demo"]
    (version,) = server.versions
    assert version["pipeline_spec"]["pipelineInfo"]["name"] == "demo"
    assert stored["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]

    code, out, _ = say("show", "demo")
    assert code == 0
    assert out.rstrip().endswith("runs:       none yet")
    server.start(stored, "SUCCEEDED", "2026-11-21T02:00:00Z")
    server.start(stored, "FAILED", "2026-11-22T02:00:00Z")
    code, out, _ = say("show", "demo", "--json")
    (shown,) = json.loads(out)
    assert code == 0
    assert (shown["cron"], shown["enabled"]) == ("0 2 * * *", True)
    assert shown["next_at"].endswith("T02:00:00Z")
    assert [run["state"] for run in shown["runs"]] == ["FAILED", "SUCCEEDED"]
    assert shown["runs"][0]["started_at"] == "2026-11-22T02:00:00Z"

    code, out, _ = say("delete", "demo")
    assert code == 0
    assert out == f"deleted: demo (0 2 * * *), recurring run {made['id']}\n"
    assert server.recurring == []


@pytest.fixture(scope="module")
def package() -> bytes:
    """The demo, compiled once."""
    return kubeflow.compiled(describe(Job(recipes.load(DEMO), deployments.load(DEPLOYMENT))))


def _schedules(server: Pipelines, namespace: str | None = None) -> Schedules:
    return Schedules(connect(server.url, namespace))


def _wanted(package: bytes, **changes: Any) -> Wanted:
    wanted = Wanted("demo", "demo", "a demo", package, parse("0 2 * * *"), "demo", "modelmill-work")
    return dataclasses.replace(wanted, **changes)


def test_made_again_it_is_left_alone_and_made_otherwise_it_is_replaced(server: Pipelines, package: bytes) -> None:
    schedules = _schedules(server)
    first, outcome = schedules.create(_wanted(package))
    assert outcome is Outcome.CREATED
    assert schedules.create(_wanted(package)) == (first, Outcome.UNCHANGED)
    assert len(server.recurring) == len(server.versions) == 1
    later, outcome = schedules.create(_wanted(package, cron=parse("0 3 * * *")))
    assert outcome is Outcome.REPLACED
    assert [item["recurring_run_id"] for item in server.recurring] == [later.id]
    # The new one is there before the old one is gone.
    changes = [item for item in server.requests if "/recurringruns" in item and not item.startswith("GET")]
    made = "POST /apis/v2beta1/recurringruns"
    assert changes == [made, made, f"DELETE /apis/v2beta1/recurringruns/{first.id}"]
    for change in (
        {"enabled": False},
        {"catch_up": True},
        {"max_concurrency": 3},
        {"parameters": {"retrain_epochs": 1}},
        {"parameters": {"retrain_epochs": 1, "gate_confidence": 0.9}},
        {"service_account": "other"},
        {"experiment": "other"},
    ):
        assert schedules.create(_wanted(package, **change))[1] is Outcome.REPLACED, change
        assert schedules.create(_wanted(package, **change))[1] is Outcome.UNCHANGED, change
        assert len(server.recurring) == 1
    assert len(server.versions) == 1


def test_what_is_disabled_has_no_next_time(server: Pipelines, package: bytes) -> None:
    made, _ = _schedules(server).create(_wanted(package, enabled=False))
    assert (made.enabled, made.next_at, made.cron) == (False, None, "0 2 * * *")


def test_other_content_is_another_version_of_the_same_pipeline(server: Pipelines, package: bytes) -> None:
    schedules = _schedules(server)
    schedules.create(_wanted(package))
    other = package.replace(b"s3://modelmill/line", b"s3://elsewhere/line")
    assert schedules.create(_wanted(other))[1] is Outcome.REPLACED
    assert len(server.pipelines) == 1
    assert len(server.versions) == 2


def test_a_field_that_no_form_holds_is_compiled_in() -> None:
    located, given = chosen(DEMO, ["data.limit.evaluate=100", "gate.min_speedup=null", "gate.min_rows=20"])
    assert given == {"gate_min_rows": 20}
    offered = {item.name for item in parameters_of(located.recipe)}
    assert located.recipe.data.limit.evaluate == 100
    assert "gate_min_speedup" not in offered
    assert located.recipe.gate.min_rows == recipes.load(DEMO).recipe.gate.min_rows
    # A split's name where the recipe has a share is of another type than the parameter.
    located, given = chosen(DEMO, ["data.tune=held-out"])
    assert (given, located.recipe.data.tune) == ({}, "held-out")


def test_several_are_listed_over_all_pages_with_those_of_others(server: Pipelines, say: Say, package: bytes) -> None:
    for name in ("c", "a", "b"):
        _schedules(server).create(_wanted(package, name=name))
    foreign = {**server.recurring[0], "display_name": "theirs", "description": "by hand", "recurring_run_id": "1"}
    server.recurring.append({**foreign, "trigger": {"periodic_schedule": {"interval_second": "60"}}})
    code, out, _ = say("show", "--json")
    assert code == 0
    listed = [(item["name"], item["made_here"]) for item in json.loads(out)]
    assert listed == [("a", True), ("b", True), ("c", True), ("theirs", False)]
    code, out, _ = say("show")
    assert code == 0
    assert "theirs" in out


def test_a_recurring_run_of_others_is_neither_replaced_nor_deleted(server: Pipelines, say: Say, package: bytes) -> None:
    _schedules(server).create(_wanted(package))
    server.recurring[0]["description"] = "by hand"
    before = len(server.requests)
    with pytest.raises(UsageError, match="modelmill did not make"):
        _schedules(server).create(_wanted(package, cron=parse("0 3 * * *")))
    assert all(item.startswith("GET") for item in server.requests[before:])
    code, _, err = say("delete", "demo")
    assert code == 2
    assert "not made by modelmill" in err
    assert len(server.recurring) == 1


def test_an_unknown_name_is_told_with_those_that_are_there(server: Pipelines, say: Say, package: bytes) -> None:
    _schedules(server).create(_wanted(package))
    for verb in ("show", "delete"):
        code, _, err = say(verb, "dmeo")
        assert code == 2
        assert "no recurring run 'dmeo'" in err
        assert "those that are there: demo" in err


def test_on_a_server_of_several_users_a_namespace_is_asked_for_and_used(
    server: Pipelines, say: Say, package: bytes
) -> None:
    server.multi_user = True
    code, _, err = say("show")
    assert code == 2
    assert "--kfp-namespace" in err
    made, _ = _schedules(server, "team-a").create(_wanted(package))
    assert made.namespace == "team-a"
    assert {item["namespace"] for item in [*server.experiments, *server.pipelines]} == {"team-a"}
    code, out, _ = say("show", "--kfp-namespace", "team-b", "--json")
    assert json.loads(out) == []
    code, out, _ = say("show", "demo", "--kfp-namespace", "kubeflow")
    assert code == 2


def test_a_token_comes_from_a_file_and_is_told_nowhere(
    server: Pipelines, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "planted-token-7281"
    code, _, err = say("show")
    assert code == 5
    assert "refuses the credentials (401: Request header error" in err
    (tmp_path / "token").write_text("planted-token-7281", "utf-8")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    code, out, err = say("create", DEMO, "--deployment", DEPLOYMENT, "--cron", "@daily")
    assert code == 0, err
    assert "planted-token-7281" not in out + err + json.dumps([server.recurring, server.versions])
    server.forbidden = True
    code, out, err = say("show")
    assert code == 5
    assert "(403: User 'a' is not authorized)" in err
    assert "planted-token-7281" not in out + err
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "nothing"))
    code, _, err = say("show")
    assert code == 2
    assert "KF_PIPELINES_SA_TOKEN_PATH" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "0 0 2 * * *"], "leave out the seconds"),
        (["--cron", "0 25 * * *"], "'25' is no hour"),
        (["--cron", "0 2 * * *", "--set", "task=other"], "structural"),
        (["--cron", "0 2 * * *", "--set", "retrain.epochs=0"], "retrain.epochs"),
        (["--cron", "0 2 * * *", "--store", "here"], "no container has"),
        (["--cron", "0 2 * * *", "--name", " x"], "' x' is no name"),
        (["--cron", "0 2 * * *", "--max-concurrency", "11"], "--max-concurrency"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    server: Pipelines, say: Say, arguments: list[str], said: str
) -> None:
    code, out, err = say("create", DEMO, "--deployment", DEPLOYMENT, *arguments)
    assert code == 2
    assert said in err
    assert out == ""
    assert server.requests == []


def test_a_recipe_of_relative_sources_is_refused_before_anything_is_sent(
    server: Pipelines, say: Say, tmp_path: Path
) -> None:
    recipe = yaml.safe_load(DEMO.read_text("utf-8"))
    recipe["data"]["source"] = "file:rows"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    code, _, err = say("create", tmp_path / "recipe.yaml", "--cron", "0 2 * * *", "--store", "s3://bucket/l")
    assert code == 2
    assert "modelmill push" in err
    assert server.requests == []


def test_an_address_that_is_none_or_leads_elsewhere_is_told(
    server: Pipelines, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host, said in (
        ("kubeflow.example", "is no address"),
        ("ftp://kubeflow.example", "is no address"),
        ("http://me:planted@kubeflow.example", "holds a name or a password"),
    ):
        code, _, err = say("show", "--host", host)
        assert (code, said in err) == (2, True), err
        assert "planted" not in err
    server.old = True
    code, _, err = say("show", "--host", f"{server.url}/")
    assert code == 2
    assert "no Kubeflow Pipelines API v2beta1" in err
    server.old, server.login = False, True
    code, _, err = say("show")
    assert code == 2
    assert "a login page" in err
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    code, _, err = say("show")
    assert code == 2
    assert "KF_PIPELINES_ENDPOINT" in err


def test_a_server_that_is_away_or_fails_is_an_outage_and_the_schedule_stays(
    server: Pipelines, say: Say, package: bytes
) -> None:
    code, _, err = say("show", "--host", "http://127.0.0.1:9")
    assert code == 5
    assert "cannot be reached (NewConnectionError)" in err
    schedules = _schedules(server)
    first, _ = schedules.create(_wanted(package))
    for failing in ("POST /apis/v2beta1/recurringruns", f"DELETE /apis/v2beta1/recurringruns/{first.id}"):
        server.failures[failing] = 500
        with pytest.raises(OrchestratorError, match=r"failed \(500: Internal error: planted\)"):
            schedules.create(_wanted(package, cron=parse("0 3 * * *")))
        assert first.id in [item["recurring_run_id"] for item in server.recurring]
    # The new one was made and the old one stayed: the next start takes it away.
    assert len(server.recurring) == 2
    assert schedules.create(_wanted(package, cron=parse("0 3 * * *")))[1] is Outcome.UNCHANGED
    assert [item["trigger"]["cron_schedule"]["cron"] for item in server.recurring] == ["0 0 3 * * *"]


def test_what_the_server_does_not_take_is_told_in_its_words(server: Pipelines, package: bytes) -> None:
    with pytest.raises(UsageError, match=r"does not take this \(400: .*parameter nothing is not in the pipeline\)"):
        _schedules(server).create(_wanted(package, parameters={"nothing": 1}))
    server.failures["POST /apis/v2beta1/experiments"] = 400
    with pytest.raises(UsageError, match="planted") as caught:
        _schedules(server).create(_wanted(package, experiment="other"))
    assert "stack trace" not in str(caught.value)
