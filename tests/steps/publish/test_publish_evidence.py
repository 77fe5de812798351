"""The documents in which a bundle explains itself: evidence, bill of materials, provenance."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from lane_artifacts import judge_lane, publish_lanes
from modelmill.core import history, manifest
from modelmill.core.bundle import read_bundle, verify
from modelmill.core.errors import InputError
from modelmill.core.evidence import LaneEvidence
from modelmill.core.signature import IN_TOTO
from resealed import reseal
from signing_keys import Keys, make_keys

PIN = "c" * 40


def document(bundle: Path, name: str) -> Any:
    return json.loads((bundle / name).read_bytes())


def tell(directory: Path, key: str, made: history.Made, before: history.History | None = None) -> None:
    """Give an artifact's directory the manifest that a runner would."""
    built = manifest.build(directory, "model")
    told = (before or history.History()).and_then(key, made)
    made_by = {"key": key, history.HISTORY: told.model_dump(mode="json")}
    manifest.write_json(
        directory / "manifest.json", built.model_copy(update={"made_by": made_by}).model_dump(mode="json")
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A bundle whose inputs tell how they were made."""
    work = tmp_path_factory.mktemp("told")
    lane = judge_lane(work / "lane", tiny_bert)
    environment = pytest.MonkeyPatch()
    environment.setenv("MODELMILL_CONTAINER_IMAGE", "registry.example/modelmill-cpu@sha256:" + "d" * 64)
    fetched = history.History().and_then(
        "sha256:" + "1" * 64,
        history.Made(
            step="fetch",
            version=1,
            settings={"model": {"pin": PIN}, "data": {"pin": f"sha256:{'e' * 64}"}},
            facts={"model.license": "apache-2.0"},
        ),
    )
    made = history.Made(step="calibrate-quantize", version=1, inputs={"model": "sha256:" + "a" * 64})
    tell(lane["model"], "sha256:" + "2" * 64, made, fetched)
    environment.undo()
    return publish_lanes(work / "bundle", {"cpu-int8": lane})


def test_the_evidence_is_small_and_says_what_the_verdicts_say(bundle: Path) -> None:
    path = bundle / "evidence.json"
    assert path.stat().st_size < 20_000
    found = document(bundle, "evidence.json")
    assert found["bundle"] == read_bundle(bundle).digest
    assert (found["run"], set(found["lanes"]), set(found["left_out"])) == (
        "run-1", {"cpu-int8", "cpu-float"}, {"cpu-bad"},
    )  # fmt: skip
    for target, lane in found["lanes"].items():
        verdict = LaneEvidence.model_validate_json((bundle / f"evidence/{target}/verdict.json").read_bytes())
        assert lane["candidate"] == verdict.candidate
        assert lane["digests"]["model"] == verdict.digests["model"]
        assert lane["latency"][0]["speedup"] == 2.5
        assert "samples_ms" not in lane["latency"][0]
    assert found["left_out"]["cpu-bad"]["verdict"] == "fail"


def test_the_bill_of_materials_is_strictly_cyclonedx_1_6(bundle: Path, told: Path) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for directory in (bundle, told):
        text = (directory / "bom.cdx.json").read_text("utf-8")
        assert validator.validate_str(text) is None
        wrong = json.loads(text)
        wrong["metadata"]["component"]["modelCard"]["accuracy"] = 1
        assert validator.validate_str(json.dumps(wrong)) is not None


def test_the_bill_of_materials_names_model_numbers_files_and_packages(told: Path) -> None:
    found = document(told, "bom.cdx.json")
    component = found["metadata"]["component"]
    assert component["hashes"][0]["content"] == read_bundle(told).digest.removeprefix("sha256:")
    assert component["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert "license: apache-2.0\n" in (told / "README.md").read_text("utf-8")
    metric = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]
    verdict = LaneEvidence.model_validate_json((told / "evidence/cpu-int8/verdict.json").read_bytes())
    assert (metric["type"], float(metric["value"])) == ("accuracy", pytest.approx(verdict.candidate, rel=1e-5))
    assert float(metric["confidenceInterval"]["lowerBound"]) == pytest.approx(verdict.candidate_ci[0], rel=1e-5)
    files = {item["name"] for item in found["components"] if item["type"] == "file"}
    assert files == set(read_bundle(told).files)
    packages = {item["name"]: item for item in found["components"] if item["type"] == "library"}
    assert packages["numpy"]["purl"] == f"pkg:pypi/numpy@{packages['numpy']['version']}"
    assert packages["numpy"]["properties"][0]["value"] == "calibrate-quantize, fetch"
    assert "%2B" in packages["torch"]["purl"] or "+" not in packages["torch"]["version"]


def test_the_provenance_names_recipe_sources_steps_and_images(told: Path) -> None:
    found = document(told, "provenance.json")
    sealed = read_bundle(told)
    assert (found["_type"], found["predicateType"]) == (
        "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1",
    )  # fmt: skip
    subjects = {item["name"]: item["digest"]["sha256"] for item in found["subject"]}
    assert subjects.pop("banking") == sealed.digest.removeprefix("sha256:")
    assert subjects == {name: entry.sha256 for name, entry in sealed.files.items()}
    build, run = found["predicate"]["buildDefinition"], found["predicate"]["runDetails"]
    assert build["externalParameters"]["recipe"] == document(told, "recipe.json")
    steps = build["internalParameters"]["steps"]
    assert {key[:8]: made["step"] for key, made in steps.items()} == {
        "sha256:1": "fetch", "sha256:2": "calibrate-quantize",
    }  # fmt: skip
    dependencies = {item["name"]: item for item in build["resolvedDependencies"]}
    assert dependencies["model"]["digest"] == {"gitCommit": PIN}
    assert dependencies["model"]["uri"] == "hf://org/base@0123456789"
    assert dependencies["data"]["digest"] == {"sha256": "e" * 64}
    assert dependencies["calibrate-quantize/model"]["digest"] == {"sha256": "a" * 64}
    assert dependencies["image"]["digest"] == {"sha256": "d" * 64}
    assert run["metadata"] == {"invocationId": "run-1"}
    assert {"name": "evidence.json", "digest": {"sha256": sealed.evidence["evidence.json"].sha256}} in run["byproducts"]


def test_the_provenance_is_strictly_what_in_toto_and_slsa_define(bundle: Path, told: Path) -> None:
    for directory in (bundle, told):
        found = document(directory, "provenance.json")
        # A field that the definitions do not have is an error here.
        statement = json_format.ParseDict(found, statement_pb2.Statement())
        Statement.copy_from_pb(statement).validate()
        provenance = json_format.ParseDict(found["predicate"], provenance_pb2.Provenance())
        assert provenance.build_definition.build_type == "urn:modelmill:line:v1"


def test_inputs_that_tell_nothing_or_nonsense_leave_a_shorter_provenance(tmp_path: Path, tiny_bert: Path) -> None:
    lane = judge_lane(tmp_path / "lane", tiny_bert)
    built = manifest.build(lane["model"], "model").model_copy(update={"made_by": {"history": {"steps": 1}}})
    manifest.write_json(lane["model"] / "manifest.json", built.model_dump(mode="json"))
    made = publish_lanes(tmp_path / "bundle", {"cpu-int8": lane})
    assert document(made, "provenance.json")["predicate"]["buildDefinition"]["internalParameters"] == {"steps": {}}
    assert document(made, "evidence.json")["steps"] == {}


def test_the_provenance_is_signed_by_the_same_key_as_dsse(tmp_path: Path, tiny_bert: Path) -> None:
    keys = make_keys(tmp_path)
    made = publish_lanes(tmp_path / "bundle", {"cpu-int8": judge_lane(tmp_path / "lane", tiny_bert)}, key=keys)
    lines = (made / "provenance.intoto.jsonl").read_text("utf-8").splitlines()
    envelope = json.loads(lines[0])
    payload = base64.b64decode(envelope["payload"])
    assert len(lines) == 1
    assert json.loads(payload) == document(made, "provenance.json")
    assert envelope["payloadType"] == IN_TOTO

    def signed_by(key: Keys) -> bool:
        known = SSlibKey.from_crypto(load_pem_public_key(key.public.read_bytes()))
        known.keyid = envelope["signatures"][0]["keyid"]
        try:
            return bool(Envelope.from_dict(json.loads(lines[0])).verify([known], 1))
        except VerificationError:
            return False

    assert signed_by(keys)
    assert not signed_by(make_keys(tmp_path, "other"))


@pytest.mark.parametrize("name", ["evidence.json", "provenance.json", "bom.cdx.json"])
def test_a_document_about_another_bundle_is_refused(tmp_path: Path, bundle: Path, name: str) -> None:
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    digest = read_bundle(copy).digest.removeprefix("sha256:")
    text = (copy / name).read_text("utf-8").replace(digest, "0" * 64)
    for content, said in ((text.encode(), "0" * 64), (b"[]", "none")):
        (copy / name).write_bytes(content)
        entry = {"sha256": manifest.sha256_of(copy / name), "size": len(content)}

        def bind(sealed: dict[str, Any], entry: dict[str, Any] = entry) -> None:
            sealed["evidence"] = {**sealed["evidence"], name: entry}

        reseal(copy, bind)
        with pytest.raises(InputError, match=rf"{name} is about another bundle, (sha256:)?{said}"):
            verify(copy)
