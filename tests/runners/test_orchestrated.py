"""The line as containers, each command line run as an orchestrator would run it."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from git_servers import commit_files, file_of, make_repository
from listener import listener
from modelmill import recipe as recipes
from modelmill.core import records
from modelmill.core.evidence import LaneEvidence
from modelmill.core.local_store import LocalStore
from modelmill.core.served import Opponent, Standing
from modelmill.core.stores import open_store
from modelmill.deployment import Backend, Deployment, Prices
from modelmill.line import Job
from modelmill.runners.containers import GIT_VARIABLE, Described, describe
from modelmill.runners.kubeflow import POINTER, compile_to
from modelmill.runners.notice import NOTIFY_VARIABLE
from modelmill.runners.result import RunDocument, safe_name
from modelmill.steps.publish.gitops_settings import GitOps
from orchestrate import orchestrate
from whole_line import make_recipe, reproducible_digests, run_in_this_process

PRICES = Prices(core_hour=0.04, currency="EUR")
"""The recipe's gate judges a cost, so that the price has to reach its container."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, rows and a recipe with absolute sources."""
    folder = tmp_path_factory.mktemp("orchestrated")
    judged = {"max_cost_per_million_texts": 1e6, "max_batch_flips": 256, "slices": {"by": "class"}}
    make_recipe(folder, gate={"max_drop_points": 5.0, "max_size_ratio": 1.0, **judged})
    return _absolute(folder)


def _absolute(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    value = yaml.safe_load(path.read_text("utf-8"))
    value["model"]["source"], value["data"]["source"] = f"file:{folder / 'model'}", f"file:{folder / 'rows'}"
    path.write_text(yaml.safe_dump(value), "utf-8")
    return folder


def _described(folder: Path, store: Path, **changes: Any) -> Described:
    fields = {"store": str(store), "backend": Backend.DOCKER, "mounts": [str(folder)], "prices": PRICES, **changes}
    deployed = Deployment.model_validate(fields)
    return describe(Job(recipes.load(folder / "recipe.yaml"), deployed))


def _document(store: Path, run: str) -> RunDocument:
    record = records.read_run(open_store(str(store)), run)
    assert record is not None
    return RunDocument.model_validate(record.document)


@pytest.fixture(scope="module")
def ran(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run of all containers, named ``first``."""
    store = tmp_path_factory.mktemp("ran") / "store"
    found = orchestrate(_described(folder, store), store.parent, "first")
    assert found.errors == {}
    assert found.pointers["finish"] == "promoted"
    return store


@pytest.fixture(scope="module")
def local(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDocument]:
    """A store that the local runner filled, and what it found."""
    store = tmp_path_factory.mktemp("local") / "store"
    return store, run_in_this_process(folder / "recipe.yaml", LocalStore(store), deployment=Deployment(prices=PRICES))


def test_containers_end_in_the_bytes_of_the_local_runner(ran: Path, local: tuple[Path, RunDocument]) -> None:
    document, (_, expected) = _document(ran, "first"), local
    assert reproducible_digests(document) == reproducible_digests(expected)
    assert document.bundle_digest == expected.bundle_digest
    assert [row.task for row in document.steps] == [row.task for row in expected.steps]
    assert not any(row.cached for row in document.steps)
    assert document.channel == "staging"
    assert document.report is not None
    assert "first" in Path(document.report).read_text("utf-8")


def test_what_the_local_runner_made_is_a_hit_for_containers(
    folder: Path, local: tuple[Path, RunDocument], tmp_path: Path
) -> None:
    store, _ = local
    orchestrate(_described(folder, store), tmp_path, "after-local")
    document = _document(store, "after-local")
    assert len(document.steps) == 12
    assert all(row.cached for row in document.steps)


def test_a_challenger_is_held_against_the_champion_in_containers_as_by_the_local_runner(
    folder: Path, local: tuple[Path, RunDocument], tmp_path: Path
) -> None:
    store, before = tmp_path / "store", local[1].bundle_digest
    shutil.copytree(local[0], store)
    value = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    value["targets"][0]["precision"] = "float32"
    value["gate"] |= {"max_drop_vs_champion_points": 5.0, "max_drop_vs_reference_points": 5.0}
    value["gate"] |= {"max_class_shift_vs_published": 0.0, "max_size_ratio": 2.0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(value), "utf-8")
    described = describe(
        Job(
            recipes.load(tmp_path / "recipe.yaml"),
            Deployment(store=str(store), backend=Backend.DOCKER, mounts=[str(folder)], prices=PRICES),
        )
    )
    assert orchestrate(described, tmp_path, "challenger").pointers["finish"] == "promoted"
    document = _document(store, "challenger")
    judged = next(row for row in document.steps if row.task == "gate.cpu-int8")
    evidence = LaneEvidence.model_validate_json((Path(judged.outputs["verdict"]) / "verdict.json").read_bytes())
    champion, reference = evidence.against[Opponent.CHAMPION], evidence.against[Opponent.REFERENCE]
    assert (champion.standing, champion.bundle) == (Standing.PREDICTED, before)
    assert reference.standing is Standing.NONE
    assert document.bundle_digest != before
    # Its own bundle is the champion now, for containers and for the local runner alike.
    again = orchestrate(described, tmp_path, "again")
    assert again.pointers["finish"] == "promoted"
    sensed = next(row for row in _document(store, "again").steps if row.task == "evaluate-candidate.cpu-int8")
    assert (sensed.cached, "champion" in sensed.inputs) == (False, True)
    found = run_in_this_process(tmp_path / "recipe.yaml", LocalStore(store), deployment=Deployment(prices=PRICES))
    assert all(row.cached for row in found.steps)
    assert found.bundle_digest == document.bundle_digest


def test_a_promotion_goes_into_git_and_a_pin_there_holds_the_run_back_in_words(
    folder: Path, ran: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(ran, store)
    repository = make_repository(tmp_path / "overlays.git")
    described = _described(folder, store, git=GitOps(remote=str(repository)))
    publish = next(item for item in described.containers if item.id == "publish")

    def told(task: str) -> None:
        patch.delenv(GIT_VARIABLE, raising=False)
        if task == "publish":
            patch.setenv(GIT_VARIABLE, publish.env[GIT_VARIABLE])

    with pytest.MonkeyPatch.context() as patch:
        found = orchestrate(described, tmp_path, "lands", before=told)
        assert found.errors == {}
        assert found.pointers["finish"] == "promoted"
        document = _document(store, "lands")
        assert document.git is not None
        assert document.git["outcome"] == "committed"
        overlay = "overlays/small/staging"
        assert str(document.bundle_digest) in file_of(repository, f"{overlay}/promotion/kustomization.yaml")
        pinned = "commonAnnotations: {modelmill.dev/pinned: 'true'}\ncomponents: [promotion]\n"
        empty = "kind: Component\n"
        component = f"{overlay}/promotion/kustomization.yaml"
        commit_files(repository, {f"{overlay}/kustomization.yaml": pinned, component: empty})
        found = orchestrate(described, tmp_path, "pinned", before=told)
    assert found.errors == {}
    assert found.pointers["finish"] == "held back"
    document = _document(store, "pinned")
    assert (document.status.exit_code, document.channel) == (0, None)
    assert str(document.held).startswith("held back by a pin in Git: overlays/small/staging/kustomization.yaml")
    page = (store / "runs" / "pinned.html").read_text("utf-8")
    assert "Held back." in page
    assert "held back by a pin in Git" in page


def test_a_refusal_skips_publish_and_finishes(folder: Path, ran: Path, tmp_path: Path) -> None:
    found = orchestrate(_described(folder, ran), tmp_path, "large", given={"gate_max_size_ratio": "0.0001"})
    assert found.errors == {}
    assert found.pointers["decide"] == "fail"
    assert found.pointers["publish"] is None
    assert found.pointers["finish"] == "refused"
    assert _document(ran, "large").bundle is None


@pytest.mark.parametrize(
    ("given", "said"),
    [({"retrain_epochs": "0"}, "retrain.epochs"), ({"gate_confidence": "sure"}, "gate.confidence")],
)
def test_a_wrong_parameter_ends_the_first_task(folder: Path, tmp_path: Path, given: dict[str, str], said: str) -> None:
    found = orchestrate(_described(folder, tmp_path / "store"), tmp_path, "wrong", given=given)
    assert said in found.errors["begin"]
    assert set(found.arguments) == {"begin", "finish"}
    assert not (tmp_path / "store" / "runs").exists()


def test_the_price_reaches_the_gates_container_and_no_other(folder: Path, tmp_path: Path) -> None:
    described = _described(folder, tmp_path / "store")
    given = {
        container.id: [part for argument in container.arguments for part in argument]
        for container in described.containers
    }
    priced = [name for name, parts in given.items() if "--core-hour" in parts]
    assert priced == ["gate.cpu-int8"]
    at = given["gate.cpu-int8"].index("--core-hour")
    assert given["gate.cpu-int8"][at : at + 4] == ["--core-hour", "0.04", "--currency", "EUR"]


def test_a_text_that_looks_like_a_template_or_a_number_stays_text(folder: Path, tmp_path: Path) -> None:
    value = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    value["data"]["columns"] = {"text": "{{ dag_run.conf }}"}
    (folder / "template.yaml").write_text(yaml.safe_dump(value), "utf-8")
    deployed = Deployment(store=str(tmp_path / "store"), backend=Backend.DOCKER, mounts=[str(folder)], prices=PRICES)
    job = Job(recipes.load(folder / "template.yaml"), deployed)
    described = describe(job)
    said = json.dumps([[container.arguments, dict(container.env)] for container in described.containers], default=str)
    assert "{{" not in said
    found = orchestrate(described, tmp_path, "template", given={"publish_model": "123"})
    assert "'{{ dag_run.conf }}'" in found.errors["fetch"]
    digest = found.pointers["begin"]
    assert digest is not None
    stored = json.loads((tmp_path / "store" / "recipes" / f"{digest.removeprefix('sha256:')}.json").read_bytes())
    assert stored["publish"]["model"] == "123"
    assert stored["data"]["columns"] == {"text": "{{ dag_run.conf }}"}


def test_a_failed_task_ends_the_run_as_failed_and_a_second_start_finishes(
    folder: Path, ran: Path, tmp_path: Path
) -> None:
    described = _described(folder, ran)
    rows, hidden = folder / "rows", folder / "hidden"

    def away(task: str) -> None:
        if task == "fetch":
            rows.rename(hidden)

    try:
        found = orchestrate(described, tmp_path, "fails", before=away)
    finally:
        hidden.rename(rows)
    assert list(found.errors) == ["fetch", "finish"]
    document = _document(ran, "fails")
    assert document.status.value == "failed"
    assert document.error is not None
    assert document.error.startswith("fetch: ")
    again = orchestrate(described, tmp_path, "fails")
    assert again.pointers["finish"] == "promoted"
    assert _document(ran, "fails").error is None


def test_a_task_that_was_killed_is_named_without_those_that_waited_for_it(
    folder: Path, ran: Path, tmp_path: Path
) -> None:
    described = _described(folder, ran)
    alone = [item for item in described.containers if item.id in {"begin", "fetch", "finish"}]
    found = orchestrate(dataclasses.replace(described, containers=tuple(alone)), tmp_path, "killed")
    assert list(found.errors) == ["finish"]
    error = str(_document(ran, "killed").error)
    assert error.startswith("retrain did not say how it ended: it was killed, most likely for want of memory")


def test_a_source_outside_the_declared_mounts_is_refused(folder: Path, tmp_path: Path) -> None:
    described = _described(folder, tmp_path / "store", mounts=[])
    found = orchestrate(described, tmp_path, "outside")
    assert "mount" in found.errors["fetch"]


def test_the_end_is_told_to_an_address(
    folder: Path, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listener() as (address, told):
        monkeypatch.setenv(NOTIFY_VARIABLE, f"{address}/secret-token")
        orchestrate(_described(folder, ran), tmp_path, "told")
    assert [(item["run"], item["status"], item["channel"]) for item in told] == [("told", "promoted", "staging")]


@pytest.fixture(scope="module")
def on_kubeflow(folder: Path, ran: Path) -> Callable[..., Any]:
    """Runs the line of the store ``ran`` as a compiled pipeline, by the rules of Kubeflow's backend."""
    backend = pytest.importorskip("kubeflow_backend", reason="kfp is not installed", exc_type=ImportError)
    compile_to(_described(folder, ran), ran.parent / "line.yaml")
    return functools.partial(backend.run_package, ran.parent / "line.yaml")


def test_a_compiled_pipeline_ends_in_what_the_containers_made_and_shows_it(
    on_kubeflow: Callable[..., Any], ran: Path, tmp_path: Path
) -> None:
    found = on_kubeflow(tmp_path, "3f2c")
    assert found.errors == {}
    assert found.outputs["finish"][POINTER] == "promoted"
    document = _document(ran, "3f2c")
    assert all(row.cached for row in document.steps)
    lane = document.targets["cpu-int8"]
    metrics, confusion = (found.outputs["gate-cpu-int8"][name] for name in ("metrics", "confusion"))
    assert type(metrics).schema_title == "system.Metrics"
    assert metrics.metadata["accuracy_candidate"] == lane.candidate
    assert metrics.metadata["drop_points_high"] == lane.drop_points_ci[1]
    assert metrics.metadata["verdict"] == "pass"
    assert type(confusion).schema_title == "system.ClassificationMetrics"
    matrix = confusion.metadata["confusionMatrix"]
    assert sum(sum(row["row"]) for row in matrix["rows"]) == metrics.metadata["rows"]
    right = sum(row["row"][index] for index, row in enumerate(matrix["rows"]))
    assert right / metrics.metadata["rows"] == lane.candidate
    report = found.outputs["finish"]["report"]
    assert type(report).schema_title == "system.HTML"
    page = Path(report.path).read_text("utf-8")
    assert "3f2c" in page
    assert page.startswith("<!doctype html>")


def test_what_kubeflow_would_replace_stays_as_the_recipe_has_it(folder: Path, ran: Path, tmp_path: Path) -> None:
    backend = pytest.importorskip("kubeflow_backend", reason="kfp is not installed", exc_type=ImportError)
    odd = tmp_path / "a {{$}}, 100% {{$.inputs.parameters['run']}} {{ ds }}"
    shutil.copytree(folder / "rows", odd / "rows")
    value = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    value["data"]["source"] = "file:rows"
    (odd / "recipe.yaml").write_text(yaml.safe_dump(value), "utf-8")
    described = _described(odd, ran, mounts=[str(folder), str(odd / "rows")])
    assert "data_source" in {item.name for item in described.parameters}
    value["data"]["source"] = f"file:{odd / 'rows'}"
    (odd / "recipe.yaml").write_text(yaml.safe_dump(value), "utf-8")
    absolute = _described(odd, ran, mounts=[str(folder), str(odd / "rows")])
    for name, line in (("relative", described), ("absolute", absolute)):
        compile_to(line, tmp_path / f"{name}.yaml")
        found = backend.run_package(tmp_path / f"{name}.yaml", tmp_path / name, name)
        assert found.errors == {}
        assert found.outputs["finish"][POINTER] == "promoted"


def test_a_compiled_pipeline_skips_publish_where_the_gate_refuses(
    on_kubeflow: Callable[..., Any], ran: Path, tmp_path: Path
) -> None:
    found = on_kubeflow(tmp_path, "9a1d", {"gate_max_size_ratio": 0.0001})
    assert found.errors == {}
    assert "publish" not in found.commands
    assert found.outputs["gate-cpu-int8"]["metrics"].metadata["verdict"] == "fail"
    assert found.outputs["finish"][POINTER] == "refused"
    assert "Refused" in Path(found.outputs["finish"]["report"].path).read_text("utf-8")


def test_a_compiled_pipeline_tells_a_wrong_parameter_and_finishes(
    on_kubeflow: Callable[..., Any], tmp_path: Path
) -> None:
    found = on_kubeflow(tmp_path, "77b0", {"gate_confidence": 2.0})
    assert list(found.errors) == ["begin", "finish"]
    assert "gate.confidence" in found.errors["begin"]
    assert set(found.commands) == {"begin", "finish"}


def test_names_of_runs_are_made_safe_and_stay_apart() -> None:
    names = ["dag-manual__2026-11-22T07:00:00+00:00", "dag-manual__2026-11-22T07:00:00-00:00", "plain", "../up"]
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == 4
    assert safe[2] == "plain"
    assert all("/" not in name and ":" not in name and not name.startswith(".") for name in safe)
