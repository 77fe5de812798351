"""The local runner on a small model, all steps real and in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer
from typer.testing import CliRunner

from modelmill.cli.main import app
from modelmill.cli.running import print_run
from modelmill.core import registry
from modelmill.core.evidence import Verdict
from modelmill.core.local_store import LocalStore
from modelmill.core.model import read_model
from modelmill.core.store import Store
from modelmill.runners.conclusion import located_in
from modelmill.runners.result import RunDocument, Status
from whole_line import make_recipe, make_rows, reproducible_digests, run_in_this_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipe, its model, its rows and the first run's store lie."""
    return tmp_path_factory.mktemp("line")


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    return LocalStore(folder / "store")


@pytest.fixture(scope="module")
def first(folder: Path, store: Store) -> RunDocument:
    """A run on an empty store."""
    return run_in_this_process(make_recipe(folder), store)


def test_a_good_model_is_promoted(first: RunDocument, store: Store) -> None:
    assert first.status is Status.PROMOTED
    assert not any(row.cached for row in first.steps)
    assert [row.name for row in first.steps] == [
        "fetch", "retrain", "evaluate", "export", "optimize", "calibrate-quantize", "calibrate-quantize",
        "evaluate", "evaluate", "evaluate", "gate", "publish",
    ]  # fmt: skip
    lane = first.targets["cpu-int8"]
    assert lane.verdict is Verdict.PASS
    assert lane.baseline > 0.9, "the three topics have words of their own"
    assert lane.precision == "int8"
    assert lane.latency[0].speedup > 0
    channel = registry.show_channel(store, "small", "staging")
    assert channel is not None
    assert channel.bundle == first.bundle_digest


def test_the_bundle_tells_every_step_that_made_it_by_its_key_and_what_fetch_read(first: RunDocument) -> None:
    bundle = Path(str(first.bundle))
    build = json.loads((bundle / "provenance.json").read_bytes())["predicate"]["buildDefinition"]
    steps = build["internalParameters"]["steps"]
    assert {key: made["step"] for key, made in steps.items()} == {
        row.key: f"{row.name}-{row.part}" if row.part else row.name for row in first.steps if row.name != "publish"
    }
    (fetched,) = (made for made in steps.values() if made["step"] == "fetch")
    model = next(item for item in build["resolvedDependencies"] if item["name"] == "model")
    assert model["uri"] == "file:model"
    assert model["annotations"]["pin"] == fetched["settings"]["model"]["pin"]
    given = {item["digest"]["sha256"] for item in build["resolvedDependencies"] if "sha256" in item.get("digest", {})}
    read = next(row for row in first.steps if row.name == "fetch")
    assert {digest.removeprefix("sha256:") for digest in read.digests.values()} <= given
    packages = {
        item["name"] for item in json.loads((bundle / "bom.cdx.json").read_bytes())["components"] if "purl" in item
    }
    assert {"torch", "transformers", "onnx", "modelmill"} <= packages


def test_every_step_records_its_time_and_memory(first: RunDocument) -> None:
    for row in first.steps:
        assert row.seconds > 0
        assert row.peak_rss_bytes > 10_000_000


def test_the_bundle_loads_as_it_is(first: RunDocument) -> None:
    bundle = Path(str(first.bundle))
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    labels = AutoConfig.from_pretrained(bundle).id2label
    document = read_model(bundle)
    (graph,) = document.components.values()
    session = onnxruntime.InferenceSession(bundle / graph.file)
    encoded = tokenizer(["card pin lost stolen", "cash top up fee charge"], padding=True, return_tensors="np")
    wanted = {item.name: encoded[item.name].astype(np.int64) for item in session.get_inputs()}
    (logits,) = session.run(["logits"], wanted)
    assert [labels[int(index)] for index in logits.argmax(-1)] == ["card", "money"]


def test_bench_finds_the_checkpoint_that_a_stored_model_was_made_from(first: RunDocument) -> None:
    lane = first.targets["cpu-int8"]
    arguments = [str(lane.artifact), "--against", "pytorch", "--cell", "1x16", "--seconds", "0.3", "--processes", "1"]
    done = CliRunner().invoke(app, ["bench", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["against"] == "pytorch"
    told = {row["name"]: (row["runs_on"], row["size_bytes"]) for row in document["subjects"]}
    checkpoint = next(row.outputs["checkpoint"] for row in first.steps if row.name == "retrain")
    assert told["pytorch"] == ("pytorch", Path(checkpoint, "model.safetensors").stat().st_size)
    assert len(told) == 2


def test_a_second_run_finds_everything_in_the_store(first: RunDocument, folder: Path, store: Store) -> None:
    second = run_in_this_process(make_recipe(folder), store)
    assert all(row.cached for row in second.steps)
    assert [row.digest for row in second.steps] == [row.digest for row in first.steps]
    assert second.bundle == first.bundle
    channel = registry.show_channel(store, "small", "staging")
    assert channel is not None
    assert len(channel.history) == 1, "the same bundle again is no move"


def test_another_store_gets_the_same_bytes(first: RunDocument, folder: Path, tmp_path: Path) -> None:
    other = run_in_this_process(make_recipe(folder), LocalStore(tmp_path / "other"))
    assert reproducible_digests(other) == reproducible_digests(first)
    assert other.bundle_digest == first.bundle_digest


def test_a_threshold_out_of_reach_is_a_refusal_with_a_report_and_no_channel(
    first: RunDocument, folder: Path, store: Store
) -> None:
    recipe = make_recipe(folder, publish={"model": "refused-model", "channel": "staging"})
    # On a busy machine PyTorch has been measured at a thousand times what this tiny model takes.
    refused = run_in_this_process(recipe, store, "gate.min_speedup=100000")
    assert refused.status is Status.REFUSED
    assert refused.status.exit_code == 3
    assert "publish" not in [row.name for row in refused.steps]
    # The model's name is in its serving files, so that the smoke test is another; a threshold only judges anew.
    assert [(row.name, row.part) for row in refused.steps if not row.cached] == [("evaluate", "smoke"), ("gate", None)]
    assert refused.bundle is None
    assert registry.show_channel(store, "refused-model", "staging") is None
    assert "1000" in Path(str(refused.report)).read_text("utf-8")
    assert any("speed" in reason for reason in refused.targets["cpu-int8"].reasons)


def test_too_few_rows_are_inconclusive(folder: Path, store: Store) -> None:
    value = yaml.safe_load(make_recipe(folder).read_text("utf-8"))
    make_rows(folder / "few", test=30)
    value["data"]["source"] = "file:few"
    recipe = folder / "few.yaml"
    recipe.write_text(yaml.safe_dump(value), "utf-8")
    document = run_in_this_process(recipe, store)
    assert document.status is Status.INCONCLUSIVE
    assert document.status.exit_code == 4


def test_two_lanes_share_what_is_equal_work(folder: Path, store: Store) -> None:
    lanes = [{"name": "cpu-int8", "precision": "int8"}, {"name": "cpu-float", "precision": "float32"}]
    document = run_in_this_process(make_recipe(folder, targets=lanes), store, "publish.model=two")
    rows = {(row.name, row.part, row.target): row for row in document.steps}
    assert rows["export", None, "cpu-int8"].key == rows["export", None, "cpu-float"].key
    assert rows["export", None, "cpu-float"].cached
    assert document.targets["cpu-float"].precision == "float32"
    assert document.targets["cpu-float"].drop_points == 0.0


def _tamper(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_output_is_made_again_and_it_says_so(folder: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    recipe = make_recipe(folder)
    before = run_in_this_process(recipe, store)
    exported = next(row for row in before.steps if row.name == "export")
    _tamper(Path(exported.outputs["model"]) / "model.onnx")
    after = run_in_this_process(recipe, store)
    assert [row.name for row in after.steps if not row.cached] == ["export"]
    assert reproducible_digests(after) == reproducible_digests(before)


def test_the_printed_document_has_the_fields_of_the_design(first: RunDocument) -> None:
    document = json.loads(first.model_dump_json())
    assert {"run", "status", "steps", "targets", "bundle", "channel", "report"} <= set(document)
    step = {"name", "target", "key", "digest", "reproducible", "outputs", "cached", "seconds", "peak_rss_bytes"}
    assert all(step <= set(row) for row in document["steps"])
    lane = document["targets"]["cpu-int8"]
    assert {
        "verdict", "hardware_class", "metric", "baseline", "candidate", "drop_points", "drop_points_ci", "latency",
        "size_bytes", "size_ratio", "peak_rss_bytes", "precision", "artifact", "digest",
    } <= set(lane)  # fmt: skip
    assert {
        "workload", "batch_size", "sequence_length", "baseline_ms_p50", "candidate_ms_p50", "candidate_ms_p95",
        "speedup", "speedup_ci", "gain_over_unquantized",
    } <= set(lane["latency"][0])  # fmt: skip
    retrain = next(row for row in document["steps"] if row["name"] == "retrain")
    assert (Path(retrain["outputs"]["checkpoint"]) / "model.safetensors").is_file()


def test_rows_that_train_and_judge_are_told_in_table_and_report(
    folder: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    value = yaml.safe_load(make_recipe(folder).read_text("utf-8"))
    rows = make_rows(folder / "leaking")
    train, test = ((rows / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True) for name in ("train", "test"))
    (rows / "test.jsonl").write_text("".join(train[:60] + test[60:]), "utf-8")
    value["data"]["source"] = "file:leaking"
    recipe = folder / "leaking.yaml"
    recipe.write_text(yaml.safe_dump(value), "utf-8")
    document = run_in_this_process(recipe, store)
    print_run(document)
    said = "60 of 120 evaluation rows"
    assert said in capsys.readouterr().out
    assert said in Path(str(document.report)).read_text("utf-8")


def test_a_store_that_was_moved_names_its_own_paths(folder: Path, store: Store, tmp_path: Path) -> None:
    document = run_in_this_process(make_recipe(folder), store)
    shutil.copytree(store.uri, tmp_path / "moved")
    moved = located_in(document, LocalStore(tmp_path / "moved"))
    addresses = [moved.bundle, moved.report, moved.targets["cpu-int8"].artifact]
    addresses += [uri for row in moved.steps for uri in row.outputs.values()]
    assert all(
        str(address).startswith(str(tmp_path / "moved")) and Path(str(address)).exists() for address in addresses
    )
