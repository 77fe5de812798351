"""Promotions in a real Git repository: what is written, and what is presumed of what lies there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from git_promotions import COMPONENT, FOLDER, SILENT, committed, published
from git_servers import commit_files, commits, file_of, git
from helm import binary
from modelmill.core import channels, registry
from modelmill.core.errors import DeploymentError, StoreError
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.steps.publish.gitops import Outcome, follow, release, require_ready
from modelmill.steps.publish.gitops_settings import GitOps


def test_a_promotion_is_a_commit_that_says_what_serves_and_why(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    digest = published(store, made[0])["bundle"]
    image = "registry.example/serving@sha256:" + "5" * 64
    done = committed(store, GitOps(remote=str(repository), image=image))
    assert done.outcome is Outcome.COMMITTED
    assert done.commit == git(repository, "rev-parse", "main").strip()
    document = yaml.safe_load(file_of(repository, COMPONENT))
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    uri = store.artifact_uri(record.artifact)
    assert document["commonAnnotations"] == {
        "modelmill.dev/model": "banking",
        "modelmill.dev/channel": "staging",
        "modelmill.dev/move": "1",
        "modelmill.dev/bundle": digest,
        "modelmill.dev/uri": uri,
        "modelmill.dev/verdict": "pass",
        "modelmill.dev/report": f"{uri}/report.html",
        "modelmill.dev/promoted-by": "run run-1",
        "modelmill.dev/image": image,
    }
    assert document["images"] == [{"name": "registry.example/serving", "digest": "sha256:" + "5" * 64}]
    assert yaml.safe_load(file_of(repository, f"{FOLDER}/kustomization.yaml"))["components"] == ["promotion"]
    assert commits(repository)[1:] == [f"banking staging: published, {digest[:19]}"]
    assert "README.md" in git(repository, "ls-tree", "--name-only", "main")


def test_the_same_bundle_twice_is_one_commit(store: LocalStore, made: list[Path], repository: Path) -> None:
    published(store, made[0])
    settings = GitOps(remote=repository.as_uri())
    assert committed(store, settings).outcome is Outcome.COMMITTED
    assert committed(store, settings).outcome is Outcome.UNCHANGED
    published(store, made[0], run="run-2")
    assert committed(store, settings).outcome is Outcome.UNCHANGED
    assert len(commits(repository)) == 2


@pytest.mark.parametrize("place", [f"{FOLDER}/kustomization.yaml", COMPONENT])
def test_a_pin_that_a_person_made_in_git_is_respected_until_it_is_gone(
    store: LocalStore, made: list[Path], repository: Path, place: str
) -> None:
    published(store, made[0])
    settings = GitOps(remote=str(repository))
    committed(store, settings)
    before = file_of(repository, place)
    document = yaml.safe_load(before)
    document.setdefault("commonAnnotations", {})["modelmill.dev/pinned"] = "true"
    commit_files(repository, {place: yaml.safe_dump(document)})
    published(store, made[1])
    done = committed(store, settings)
    assert done.outcome is Outcome.HELD
    assert done.words.startswith(f"held back by a pin in Git: {place}")
    assert len(commits(repository)) == 3
    commit_files(repository, {place: before})
    assert committed(store, settings).outcome is Outcome.COMMITTED


def test_a_newer_promotion_is_never_stepped_back_over(store: LocalStore, made: list[Path], repository: Path) -> None:
    published(store, made[0])
    settings = GitOps(remote=str(repository))
    committed(store, settings)
    newer = file_of(repository, COMPONENT).replace("modelmill.dev/move: '1'", "modelmill.dev/move: '7'")
    commit_files(repository, {COMPONENT: newer})
    published(store, made[1])
    done = committed(store, settings)
    assert done.outcome is Outcome.NEWER
    assert "newer than move 2" in done.words
    assert file_of(repository, COMPONENT) == newer


def test_an_overlay_that_does_not_list_the_component_is_told_what_to_add(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    published(store, made[0])
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": "resources: [service.yaml]\n"})
    with pytest.raises(DeploymentError, match="does not list the component") as caught:
        committed(store, GitOps(remote=str(repository)))
    assert "components: [promotion]" in str(caught.value)
    assert len(commits(repository)) == 2


@pytest.mark.parametrize("listed", ["../promotion", ".promotion", "promotion/more", "..promotion"])
def test_a_component_of_another_folder_is_not_the_one_that_promotions_write(
    store: LocalStore, made: list[Path], repository: Path, listed: str
) -> None:
    published(store, made[0])
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": f"components: [{listed}]\n"})
    with pytest.raises(DeploymentError, match="does not list the component"):
        committed(store, GitOps(remote=str(repository)))
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": "components: [./x/../promotion/]\n"})
    assert committed(store, GitOps(remote=str(repository))).outcome is Outcome.COMMITTED


@pytest.mark.parametrize(("model", "channel"), [("banking", "production"), ("weather", "staging")])
def test_a_folder_that_another_channel_or_model_has_is_never_written_over(
    store: LocalStore, made: list[Path], repository: Path, model: str, channel: str
) -> None:
    published(store, made[0])
    settings = GitOps(remote=str(repository), overlay="one")
    assert committed(store, settings).outcome is Outcome.COMMITTED
    published(store, made[1])
    assert committed(store, settings).outcome is Outcome.COMMITTED
    place = "one/promotion/kustomization.yaml"
    theirs = file_of(repository, place).replace("model: banking", f"model: {model}")
    theirs = theirs.replace("channel: staging", f"channel: {channel}")
    commit_files(repository, {place: theirs})
    with pytest.raises(DeploymentError, match=f"{place} is what {model} {channel} serves") as caught:
        committed(store, settings)
    assert "banking staging would be written over it" in str(caught.value)
    assert "{model} and {channel} in git.overlay" in str(caught.value)
    assert file_of(repository, place) == theirs


def test_what_a_person_wrote_beside_the_component_stays(store: LocalStore, made: list[Path], repository: Path) -> None:
    own = "# mine\nresources: [service.yaml]\ncomponents:\n- ./promotion\n"
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": own, f"{FOLDER}/service.yaml": "kind: X\n"})
    published(store, made[0])
    assert committed(store, GitOps(remote=str(repository))).outcome is Outcome.COMMITTED
    assert file_of(repository, f"{FOLDER}/kustomization.yaml") == own
    assert file_of(repository, f"{FOLDER}/service.yaml") == "kind: X\n"


def test_a_link_in_the_repository_leads_nowhere(store: LocalStore, made: list[Path], repository: Path) -> None:
    blob = git(repository, "hash-object", "-w", "--stdin", given="/etc").strip()
    git(repository, "read-tree", "main")
    git(repository, "update-index", "--add", "--cacheinfo", f"120000,{blob},{FOLDER}")
    tree = git(repository, "write-tree").strip()
    commit = git(repository, "commit-tree", "-p", "main", "-m", "a link", tree).strip()
    git(repository, "update-ref", "refs/heads/main", commit)
    published(store, made[0])
    with pytest.raises(DeploymentError, match="is a file or a link there"):
        committed(store, GitOps(remote=str(repository)))


def test_a_rollback_goes_into_git_as_the_newer_move(store: LocalStore, made: list[Path], repository: Path) -> None:
    first, _ = (published(store, directory) for directory in made)
    settings = GitOps(remote=str(repository))
    committed(store, settings)
    record = registry.find_bundle(store, "banking", first["bundle"])
    assert record is not None
    channels.roll_back(store, "banking", "staging", record, by="ada", why="slow\nat night", progress=SILENT)
    assert committed(store, settings).outcome is Outcome.COMMITTED
    annotations = yaml.safe_load(file_of(repository, COMPONENT))["commonAnnotations"]
    assert (annotations["modelmill.dev/bundle"], annotations["modelmill.dev/move"]) == (first["bundle"], "3")
    assert "Why: slow at night" in git(repository, "log", "-1", "--format=%b")


@pytest.mark.parametrize("back", [True, False])
def test_what_fails_in_git_after_a_move_says_that_the_registry_moved_and_how_git_comes_after(
    store: LocalStore, made: list[Path], repository: Path, back: bool
) -> None:
    first, _ = (published(store, directory) for directory in made)
    record = registry.find_bundle(store, "banking", first["bundle"])
    assert record is not None
    settings = GitOps(remote=str(repository))
    require_ready(settings, "banking", "staging")
    done = channels.roll_back(store, "banking", "staging", record, by="ada", why=None, progress=SILENT)
    # A person breaks it meanwhile.
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": "components: []\n"})
    with pytest.raises(DeploymentError, match=f"names {record.bundle} now, and Git does not: ") as caught:
        follow(store, settings, done, SILENT, back=back)
    assert "does not list the component" in str(caught.value)
    verb = f"rollback banking staging --to {record.bundle}" if back else f"promote banking staging {record.bundle}"
    assert f"modelmill channel {verb}" in str(caught.value.fix)
    assert f"components: [{Path(COMPONENT).parent.name}]" in str(caught.value.fix)
    store.delete_artifact(record.artifact)
    with pytest.raises(StoreError, match=f"names {record.bundle} now, and Git does not"):
        follow(store, settings, done, SILENT, back=back)


def test_a_run_moves_no_channel_that_git_could_not_follow(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    first = published(store, made[0], git=settings)["bundle"]
    with pytest.raises(DeploymentError, match=r"nothing was moved, neither the channel nor Git: .* no branch release"):
        published(store, made[1], git=GitOps(remote=str(repository), branch="release"))
    named = registry.show_channel(store, "banking", "staging")
    assert named is not None
    assert (named.bundle, named.number) == (first, 1)
    assert len(commits(repository)) == 2
    assert published(store, made[1], git=settings)["git"]["outcome"] == "committed"


def test_a_bundle_in_a_folder_of_this_machine_is_committed_with_a_warning(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    said: list[str] = []

    class Told(SilentProgress):
        def fact(self, text: str) -> None:
            said.append(text)

    published(store, made[0])
    done = release(store, GitOps(remote=str(repository)), "banking", "staging", Told())
    assert done.outcome is Outcome.COMMITTED
    assert [line for line in said if "which no cluster reads" in line and store.uri in line]
    assert [line for line in said if "s3://BUCKET/PREFIX" in line]


def test_a_pin_in_git_holds_the_run_s_promotion_back_in_words(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    pinned = "commonAnnotations: {modelmill.dev/pinned: 'true'}\ncomponents: [promotion]\n"
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": pinned})
    facts = published(store, made[0], git=settings)
    assert facts["git"]["outcome"] == "held back"
    assert facts["held"].startswith("held back by a pin in Git")


def test_kustomize_puts_the_bundle_and_the_image_into_what_serves(
    store: LocalStore, made: list[Path], repository: Path, tmp_path: Path
) -> None:
    kubectl = binary("kubectl")
    serving = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "banking"},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "onnx"}, "storageUri": "s3://nothing/yet"}}},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway"},
        "spec": {"template": {"spec": {"containers": [{"name": "gateway", "image": "registry.example/serving:1"}]}}},
    }
    own = {"resources": ["serving.yaml"], "components": ["promotion"]}
    commit_files(
        repository,
        {
            f"{FOLDER}/kustomization.yaml": yaml.safe_dump(own),
            f"{FOLDER}/serving.yaml": yaml.safe_dump_all([serving, deployment]),
        },
    )
    digest = published(store, made[0])["bundle"]
    image = "registry.example/serving@sha256:" + "5" * 64
    committed(store, GitOps(remote=str(repository), image=image))
    (tmp_path / "work").mkdir()
    git(repository, f"--work-tree={tmp_path / 'work'}", "checkout", "-f", "main", "--", ".")
    done = subprocess.run(
        [str(kubectl), "kustomize", str(tmp_path / "work" / FOLDER)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {item["kind"]: item for item in yaml.safe_load_all(done.stdout)}
    record = registry.find_bundle(store, "banking", digest)
    assert record is not None
    model = found["InferenceService"]["spec"]["predictor"]["model"]
    assert model == {"modelFormat": {"name": "onnx"}, "storageUri": store.artifact_uri(record.artifact)}
    assert found["InferenceService"]["metadata"]["annotations"]["modelmill.dev/bundle"] == digest
    template = found["Deployment"]["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == image
    assert template["metadata"]["annotations"]["modelmill.dev/verdict"] == "pass"
