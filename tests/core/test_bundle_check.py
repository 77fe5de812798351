"""Verification of a bundle: everything that was touched is found, and named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from lane_artifacts import judge_lane, publish_lanes
from modelmill.core import manifest
from modelmill.core.bundle import read_bundle, verify
from modelmill.core.errors import InputError
from resealed import reseal


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    work = tmp_path_factory.mktemp("pristine")
    lanes = {
        "cpu-int8": judge_lane(work / "int8", tiny_bert, "cpu-int8"),
        "cpu-float": judge_lane(work / "float", tiny_bert, "cpu-float", seed=1, external=True),
    }
    return publish_lanes(work / "bundle", lanes)


@pytest.fixture
def copy(tmp_path: Path, pristine: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "bundle")


def test_a_bundle_as_published_is_whole(pristine: Path) -> None:
    check = verify(pristine)
    document = read_bundle(pristine)
    assert check.digest == document.digest
    assert (check.files, check.evidence) == (len(document.files), len(document.evidence))
    assert check.size_bytes == sum(path.stat().st_size for path in pristine.rglob("*") if path.is_file()) - len(
        (pristine / "bundle.json").read_bytes()
    )


def test_every_file_but_the_document_is_covered_or_bound(pristine: Path) -> None:
    document = read_bundle(pristine)
    there = {path.relative_to(pristine).as_posix() for path in pristine.rglob("*") if path.is_file()}
    assert set(document.files) | set(document.evidence) == there - {"bundle.json"}
    assert set(document.files).isdisjoint(document.evidence)
    assert {"model.onnx", "tokenizer.json", "config.json", "model.json", "choice.json"} <= set(document.files)
    assert {"README.md", "report.html", "recipe.json", "evidence/cpu-int8/verdict.json"} <= set(document.evidence)


def test_single_bytes_changed_removed_and_added_are_all_found(copy: Path) -> None:
    generator = random.Random(0)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    for _ in range(200):
        path = generator.choice(files)
        content = path.read_bytes()
        at = generator.randrange(len(content))
        kind = generator.choice(["change", "remove", "add"])
        byte = bytes([content[at] ^ generator.randrange(1, 256)])
        middle = {"change": byte + content[at + 1 :], "remove": content[at + 1 :], "add": byte + content[at:]}[kind]
        path.write_bytes(content[:at] + middle)
        with pytest.raises(InputError, match=path.name.replace(".", r"\.")):
            verify(copy)
        path.write_bytes(content)
    verify(copy)


def test_each_file_removed_is_named(copy: Path) -> None:
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(InputError, match="it has no bundle.json" if path.name == "bundle.json" else "is missing"):
            verify(copy)
        path.write_bytes(content)


def test_a_file_added_anywhere_is_named(copy: Path) -> None:
    for name in ("more.bin", "lanes/cpu-float/more.bin", "evidence/more.json", "new/folder/more.bin"):
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        with pytest.raises(InputError, match=f"{name} was added"):
            verify(copy)
        path.unlink()
        for parent in (path.parent, path.parent.parent):
            if parent.is_relative_to(copy) and not any(parent.iterdir()):
                parent.rmdir()


def test_a_link_is_refused_even_to_the_same_bytes(copy: Path, tmp_path: Path) -> None:
    (copy / "config.json").rename(tmp_path / "elsewhere.json")
    (copy / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(InputError, match=r"config\.json is a link"):
        verify(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\\b"])
def test_paths_outside_of_the_bundle_are_refused(copy: Path, name: str) -> None:
    entry = {"sha256": "0" * 64, "size": 1}

    def covered(document: dict[str, object]) -> None:
        document["files"] = {**document["files"], name: entry}  # type: ignore[dict-item]

    def evidence(document: dict[str, object]) -> None:
        document["evidence"] = {**document["evidence"], name: entry}  # type: ignore[dict-item]

    for edit in (covered, evidence):
        original = (copy / "bundle.json").read_bytes()
        reseal(copy, edit)
        with pytest.raises(InputError, match="which leaves the bundle"):
            verify(copy)
        (copy / "bundle.json").write_bytes(original)


def test_evidence_of_another_model_is_refused(copy: Path) -> None:
    verdict = copy / "evidence/cpu-int8/verdict.json"
    document = json.loads(verdict.read_bytes())
    document["digests"]["model"] = "sha256:" + "0" * 64
    manifest.write_json(verdict, document)
    entry = {"sha256": manifest.sha256_of(verdict), "size": verdict.stat().st_size}

    def bind(sealed: dict[str, object]) -> None:
        sealed["evidence"] = {**sealed["evidence"], "evidence/cpu-int8/verdict.json": entry}  # type: ignore[dict-item]

    reseal(copy, bind)
    with pytest.raises(InputError, match=r"cpu-int8/verdict\.json is evidence of another model, sha256:0000"):
        verify(copy)


def test_a_summary_that_contradicts_a_verdict_and_a_missing_document_are_refused(copy: Path) -> None:
    summary = copy / "evidence.json"
    document = json.loads(summary.read_bytes())
    document["lanes"]["cpu-int8"]["verdict"] = "fail"
    manifest.write_json(summary, document)
    entry = {"sha256": manifest.sha256_of(summary), "size": summary.stat().st_size}

    def bind(sealed: dict[str, object]) -> None:
        sealed["evidence"] = {**sealed["evidence"], "evidence.json": entry}  # type: ignore[dict-item]

    def leave_out(sealed: dict[str, object]) -> None:
        sealed["evidence"] = {
            name: value
            for name, value in sealed["evidence"].items()  # type: ignore[attr-defined]
            if name != "provenance.json"
        }

    reseal(copy, bind)
    with pytest.raises(InputError, match=r"evidence\.json says fail where the verdict itself says pass"):
        verify(copy)
    reseal(copy, leave_out)
    (copy / "provenance.json").unlink()
    with pytest.raises(InputError, match=r"provenance\.json is missing"):
        verify(copy)


def test_a_model_that_no_evidence_is_about_is_refused(copy: Path) -> None:
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    entry = {"sha256": manifest.sha256_of(graph), "size": graph.stat().st_size}

    def cover(sealed: dict[str, object]) -> None:
        sealed["files"] = {**sealed["files"], "model.onnx": entry}  # type: ignore[dict-item]

    reseal(copy, cover)
    with pytest.raises(InputError, match="the files of the lane cpu-int8 are not the model sha256:"):
        verify(copy)


def test_the_stores_manifest_may_lie_in_it_and_must_agree(copy: Path) -> None:
    made, path = manifest.build(copy, "bundle"), copy / "manifest.json"
    written = manifest.canonical(made.model_dump(mode="json"))
    path.write_bytes(written)
    verify(copy)
    files = {name: entry for name, entry in made.files.items() if name != "config.json"}
    partial = made.model_copy(update={"files": files})
    path.write_bytes(manifest.canonical(partial.model_dump(mode="json")))
    with pytest.raises(InputError, match=r"manifest\.json lists other files than bundle\.json"):
        verify(copy)
    for touched in (written + b" ", written.replace(b'"bundle"', b'"model"')):
        path.write_bytes(touched)
        with pytest.raises(InputError, match=r"manifest\.json is not what a store writes of a bundle"):
            verify(copy)


def test_a_folder_without_files_is_named(copy: Path) -> None:
    (copy / "lanes" / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(InputError, match="lanes/empty was added"):
        verify(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not what publish writes"),
        (b"[]", "is not what publish writes"),
        (b"\xff\xfe", "is not what publish writes"),
        (b"[" * 100_000, "is not what publish writes"),
        (b'{"format": 2, "anything": 1}', "has format 2, written by a newer modelmill"),
        (b'{"format": 1}', "is not what publish writes: Field required"),
    ],
)
def test_a_document_that_is_none_is_said_so(copy: Path, content: bytes, message: str) -> None:
    (copy / "bundle.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        verify(copy)
    assert caught.value.exit_code == 2


def test_a_directory_that_is_no_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this is no bundle: it has no bundle\.json"):
        verify(tmp_path)
    with pytest.raises(InputError, match="this is no bundle"):
        verify(tmp_path / "nowhere")
