"""The bundle that publish assembles: what lies in it, what it loads in, what its digest depends on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoTokenizer

from html_page import Page
from lane_artifacts import judge_lane, lane_measurements, publish_lanes, write_lane_choice
from modelmill.core.bundle import read_bundle, verify
from modelmill.core.errors import InputError, ModelError
from modelmill.core.evidence import LaneEvidence
from modelmill.core.model import read_model
from modelmill.steps.calibrate_quantize.contract import Bound, Scheme, Variant
from modelmill.steps.calibrate_quantize.trials import Trial, TrialTable
from modelmill.steps.publish import assemble
from modelmill.targets.base import Precision

Lanes = dict[str, dict[str, Path]]


def test_the_first_passed_lane_is_at_the_root_and_the_next_below_lanes(bundle: Path) -> None:
    check = verify(bundle)
    assert check.lanes == {"cpu-int8": ".", "cpu-float": "lanes/cpu-float"}
    assert check.signature == "unsigned"
    assert {path.name for path in bundle.iterdir()} >= {
        "README.md", "bundle.json", "choice.json", "config.json", "evidence", "lanes", "model.json", "model.onnx",
        "recipe.json", "report.html", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (bundle / "lanes/cpu-float/model.onnx.data").is_file()


def test_the_order_is_the_recipes_whatever_the_mappings(tmp_path: Path, judged: Lanes) -> None:
    backwards = {name: judged[name] for name in ("cpu-float", "cpu-int8")}
    assert verify(publish_lanes(tmp_path / "b", backwards)).lanes["cpu-int8"] == "."
    unlisted = publish_lanes(tmp_path / "c", backwards, recipe={})
    assert verify(unlisted).lanes["cpu-float"] == "."


def test_a_refused_lane_is_left_out_and_named(bundle: Path) -> None:
    assert not (bundle / "lanes/cpu-bad").exists()
    assert not (bundle / "evidence/cpu-bad").exists()
    card = (bundle / "README.md").read_text("utf-8")
    assert "The lane cpu-bad is left out (fail): The drop of accuracy is at least" in card


@pytest.mark.parametrize("lane", [".", "lanes/cpu-float"])
def test_tokenizer_config_and_graph_load_from_each_lanes_directory_as_it_is(bundle: Path, lane: str) -> None:
    directory = bundle / lane
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert AutoConfig.from_pretrained(directory).id2label == {0: "alpha", 1: "beta", 2: "gamma"}
    session = onnxruntime.InferenceSession(directory / "model.onnx", providers=["CPUExecutionProvider"])
    batch = tokenizer(["my card is lost", "pin"], padding=True, return_tensors="np")
    feeds = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    (logits,) = session.run(["logits"], feeds)
    assert logits.shape == (2, 3)
    assert read_model(directory).precision == "int8"


def test_the_cards_code_runs_and_prints_a_class_and_a_score(bundle: Path) -> None:
    found = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text("utf-8"), re.DOTALL)
    assert len(found) == 1
    done = subprocess.run(
        [sys.executable, "-c", found[0]], cwd=bundle, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(re.fullmatch(r".+: (alpha|beta|gamma) [01]\.\d{3}", line) for line in lines)


def test_the_card_has_hub_metadata_and_every_number_with_its_interval(bundle: Path) -> None:
    card = (bundle / "README.md").read_text("utf-8")
    _, front_matter, body = card.split("---\n", 2)
    metadata = yaml.safe_load(front_matter)
    assert (metadata["license"], metadata["license_name"]) == ("other", "unknown")
    assert "ask their sources before you pass this on" in body
    assert metadata["pipeline_tag"] == "text-classification"
    assert metadata["base_model"] == "org/base"
    assert "datasets" not in metadata
    evidence = LaneEvidence.model_validate_json((bundle / "evidence/cpu-int8/verdict.json").read_bytes())
    low, high = evidence.candidate_ci
    assert f"| {evidence.candidate:.4f} [{low:.4f} to {high:.4f}] |" in body
    assert "2.50 × [2.40 to 2.60] (batch 1, length 128)" in body
    assert read_bundle(bundle).digest in body
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 4


def test_the_hub_reads_the_cards_results(bundle: Path) -> None:
    card = ModelCard.load(bundle / "README.md")
    results = card.data.eval_results
    assert [(item.task_type, item.dataset_name, item.metric_type) for item in results] == [
        ("text-classification", "../data/banking", "accuracy")
    ] * 2
    for result, target in zip(results, ("cpu-int8", "cpu-float"), strict=True):
        verdict = LaneEvidence.model_validate_json((bundle / f"evidence/{target}/verdict.json").read_bytes())
        low, high = verdict.candidate_ci
        assert result.metric_value == pytest.approx(verdict.candidate, abs=1e-6)
        assert result.metric_name == f"accuracy, {target}, int8, 95 % interval {low:.4f} to {high:.4f}"


def test_a_graph_of_one_file_lies_where_browsers_look_and_is_the_root_lanes(tmp_path: Path, tiny_bert: Path) -> None:
    lanes = {
        "cpu-int8": judge_lane(tmp_path / "int8", tiny_bert),
        "cpu-float": judge_lane(tmp_path / "float", tiny_bert, "cpu-float", seed=1),
    }
    made = publish_lanes(tmp_path / "b", lanes)
    document = read_bundle(made)
    assert document.files["onnx/model_quantized.onnx"] == document.files["model.onnx"]
    assert [name for name in document.files if "onnx/" in name] == ["onnx/model_quantized.onnx"]
    assert 'DIRECTORY, { dtype: "q8" });' in (made / "README.md").read_text("utf-8")
    assert verify(made).lanes == {"cpu-int8": ".", "cpu-float": "lanes/cpu-float"}


def test_no_large_graph_and_none_with_external_data_is_there_twice(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    external = {"cpu-int8": judge_lane(tmp_path / "external", tiny_bert, external=True)}
    assert not (publish_lanes(tmp_path / "a", external) / "onnx").exists()
    monkeypatch.setattr(assemble, "BROWSER_LIMIT_BYTES", 1000)
    large = publish_lanes(tmp_path / "b", {"cpu-int8": judge_lane(tmp_path / "large", tiny_bert)})
    assert not (large / "onnx").exists()
    assert 'DIRECTORY, { dtype: "fp32", subfolder: "" });' in (large / "README.md").read_text("utf-8")


def test_texts_of_the_data_stay_out_unless_the_recipe_asks_for_them(
    tmp_path: Path, bundle: Path, judged: Lanes
) -> None:
    def files_with(directory: Path, text: str) -> list[str]:
        return sorted(path.name for path in directory.rglob("*") if path.is_file() and text in path.read_text("latin1"))

    assert files_with(bundle, "lost & found") == []
    assert files_with(bundle, "lost &amp; found") == []
    with_texts = publish_lanes(tmp_path / "b", judged, texts=True)
    assert files_with(with_texts, "lost & found") == ["verdict.json", "verdict.json"]
    assert files_with(with_texts, "lost &amp; found") == ["report.html"]
    assert verify(with_texts).digest == verify(bundle).digest


def test_the_same_model_made_again_is_the_same_bundle(tmp_path: Path, tiny_bert: Path) -> None:
    digests, evidence = set(), set()
    for scale in (1.0, 1.3):
        work = tmp_path / str(scale)
        lane = judge_lane(work, tiny_bert, measurements=lane_measurements(scale))
        write_lane_choice(work / "choice", reason=f"found best at {scale} ms")
        made = publish_lanes(work / "bundle", {"cpu-int8": lane}, run=f"run-{scale}")
        digests.add(verify(made).digest)
        evidence.add((made / "bundle.json").read_bytes())
        assert json.loads((made / "evidence/cpu-int8/choice.json").read_bytes())["reason"].endswith(f"{scale} ms")
    assert len(digests) == 1
    assert len(evidence) == 2


def test_another_model_or_choice_is_another_bundle(tmp_path: Path, tiny_bert: Path) -> None:
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        lane = judge_lane(tmp_path / str(number), tiny_bert, seed=seed)
        if number == 1:
            choice = json.loads((lane["choice"] / "choice.json").read_bytes())
            (lane["choice"] / "choice.json").write_text(json.dumps({**choice, "scheme": "static"}), "utf-8")
        digests.append(verify(publish_lanes(tmp_path / f"b{number}", {"cpu-int8": lane})).digest)
    assert len(set(digests)) == 3


def test_lanes_with_the_same_model_share_its_files(tmp_path: Path, tiny_bert: Path) -> None:
    lanes = {name: judge_lane(tmp_path / name, tiny_bert, name) for name in ("cpu-int8", "cpu-float")}
    made = publish_lanes(tmp_path / "b", lanes)
    assert verify(made).lanes == {"cpu-int8": ".", "cpu-float": "."}
    assert not (made / "lanes").exists()
    assert (made / "evidence/cpu-float/verdict.json").is_file()


def test_nothing_is_published_without_a_passed_lane(tmp_path: Path, judged: Lanes) -> None:
    with pytest.raises(ModelError, match="no lane passed the gate"):
        publish_lanes(tmp_path / "b", {"cpu-bad": judged["cpu-bad"]})


def test_a_verdict_about_another_model_is_refused(tmp_path: Path, judged: Lanes) -> None:
    mixed = {**judged["cpu-int8"], "model": judged["cpu-float"]["model"]}
    with pytest.raises(ModelError, match=r"verdict of the lane cpu-int8 is about the model sha256:\w+, and sha256:"):
        publish_lanes(tmp_path / "b", {"cpu-int8": mixed})


def test_a_verdict_of_another_lane_is_refused(tmp_path: Path, judged: Lanes) -> None:
    with pytest.raises(ModelError, match="is of the lane cpu-float"):
        publish_lanes(tmp_path / "b", {"cpu-int8": judged["cpu-float"]})


def test_a_model_file_in_the_place_of_a_bundles_own_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path, tiny_bert)
    (lane["model"] / "README.md").write_text("mine", "utf-8")
    with pytest.raises(ModelError, match=r"has a file README\.md, where a bundle keeps its own"):
        publish_lanes(tmp_path / "b", {"cpu-int8": lane})


@pytest.mark.parametrize("name", ["", "..", "a/b", "Banking", "-a", "a" * 64])
def test_a_name_that_could_lie_anywhere_is_refused(tmp_path: Path, judged: Lanes, name: str) -> None:
    for field in ("model", "channel"):
        with pytest.raises(InputError, match=rf"cannot name a {field}"):
            publish_lanes(tmp_path / f"{field}{len(name)}", {"cpu-int8": judged["cpu-int8"]}, **{field: name})


def test_a_lanes_trials_stand_in_the_bundles_report(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "lane", tiny_bert)
    variant = Variant(precision=Precision.INT8, scheme=Scheme.DYNAMIC)
    table = TrialTable(
        threads=2,
        bound=Bound(),
        checkpoint_bytes=100,
        seconds=1.0,
        reason="the fastest that keeps to the bounds",
        notes=["the search ended after 1 trials, its budget"],
        trials=[Trial(name="a candidate that crashed", variant=variant, failure="it died of SIGSEGV")],
        chosen=0,
    )
    document = table.model_copy(update={"tried": table.rows()}).model_dump(mode="json")
    (lane["choice"] / "trials.json").write_text(json.dumps(document), "utf-8")
    bundle = publish_lanes(tmp_path / "bundle", {"cpu-int8": lane})
    words = " ".join(Page((bundle / "report.html").read_text("utf-8")).words)
    for told in ("a candidate that crashed", "it died of SIGSEGV", table.reason, table.notes[0]):
        assert told in words
    assert json.loads((bundle / "evidence" / "cpu-int8" / "trials.json").read_bytes()) == document
