"""Promotions committed to real Git repositories: what is written, what is presumed, what the server refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import git_writers
from git_servers import TOKEN, USER, GitServer, commit_files, commits, file_of, git, git_server, hook, make_repository
from helm import binary
from lane_artifacts import judge_lane, publish_lanes, publish_settings
from modelmill.core import channels, manifest, registry
from modelmill.core.contract import PortType
from modelmill.core.documents import validate
from modelmill.core.errors import DeploymentError, GitError
from modelmill.core.local_store import LocalStore
from modelmill.core.progress import SilentProgress
from modelmill.runners import process
from modelmill.steps.publish.git_remote import Credentials
from modelmill.steps.publish.gitops import Committed, Outcome, Patience, release
from modelmill.steps.publish.gitops_settings import GitOps
from modelmill.steps.publish.promote import promote
from ssh_git_server import address, ssh_git_server

FOLDER = "overlays/banking/staging"
COMPONENT = f"{FOLDER}/promotion/kustomization.yaml"
QUICK = Patience(away=2, away_seconds=0.01, race_seconds=0.01)
SILENT = SilentProgress()
ALLOWED = Credentials(username=USER, token=TOKEN, api_token=TOKEN)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> list[Path]:
    """Two bundles of one model. Read-only."""
    work = tmp_path_factory.mktemp("bundles")
    return [
        publish_lanes(work / f"b{seed}", {"cpu-int8": judge_lane(work / f"l{seed}", tiny_bert, seed=seed)})
        for seed in (0, 1)
    ]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "git" / "overlays.git")


@pytest.fixture
def server(repository: Path) -> Iterator[GitServer]:
    with git_server(repository.parent) as found:
        yield found


def published(store: LocalStore, directory: Path, **settings: Any) -> dict[str, Any]:
    """Publish as a run does: the effect's facts."""
    found = manifest.build(directory, PortType.BUNDLE)
    store.put_artifact(directory, found, SILENT)
    outputs = {"bundle": (store.get_artifact(found.digest, SILENT), found.digest)}
    return dict(promote(store, outputs, publish_settings(**settings), SILENT).facts)


def committed(store: LocalStore, settings: GitOps, credentials: Credentials = ALLOWED) -> Committed:
    return release(store, settings, "banking", "staging", SILENT, credentials, QUICK)


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


def test_http_takes_credentials_that_stand_in_no_address_argument_or_file(
    store: LocalStore, made: list[Path], repository: Path, server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, made[0])
    settings = GitOps(remote=f"{server.address}/git/overlays.git")
    # What git is started with, and what lies on the disk while it runs.
    calls: list[tuple[list[str], list[str]]] = []
    run = subprocess.run

    def watched(command: list[str], **given: Any) -> Any:
        if command[0] == "git" and "--git-dir" in command:
            folder = Path(command[command.index("--git-dir") + 1]).parent
            texts = [p.read_bytes().decode(errors="replace") for p in folder.rglob("*") if p.is_file()]
            calls.append((list(command), texts))
        return run(command, **given)

    monkeypatch.setattr(subprocess, "run", watched)
    assert committed(store, settings).outcome is Outcome.COMMITTED
    assert file_of(repository, COMPONENT)
    assert len(calls) > 5
    secrets = (TOKEN, Credentials(USER, TOKEN).header or "")
    assert not [secret for secret in secrets if secret.split()[-1] in repr(calls)]
    assert not any("@" in line.split("\n")[0] for line in server.seen)


@pytest.mark.parametrize("credentials", [Credentials(), Credentials(USER, "wrong-token-of-a-test")])
def test_wrong_credentials_are_named_and_not_repeated(
    store: LocalStore, made: list[Path], server: GitServer, credentials: Credentials
) -> None:
    published(store, made[0])
    with pytest.raises(GitError, match="lets nobody in with these credentials") as caught:
        committed(store, GitOps(remote=f"{server.address}/git/overlays.git"), credentials)
    assert caught.value.exit_code == 5
    assert "MODELMILL_GIT_TOKEN" in str(caught.value)
    assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("error: GH006: Protected branch update failed for refs/heads/main.", "the branch main is protected"),
        ("policy: commits need a ticket", "the Git server declined the push to main: policy: commits need a ticket"),
    ],
)
def test_a_refusal_of_the_server_is_reported_as_such(
    store: LocalStore, made: list[Path], repository: Path, words: str, told: str
) -> None:
    published(store, made[0])
    hook(repository, words)
    with pytest.raises(GitError, match=told) as caught:
        committed(store, GitOps(remote=str(repository)))
    assert caught.value.exit_code == 5
    assert len(commits(repository)) == 1


def test_a_remote_that_is_away_is_asked_again_and_then_said(store: LocalStore, made: list[Path]) -> None:
    published(store, made[0])
    with pytest.raises(GitError, match="does not answer") as caught:
        committed(store, GitOps(remote="http://127.0.0.1:9/git/overlays.git"))
    assert caught.value.exit_code == 5


def test_a_branch_that_is_not_there_is_named(store: LocalStore, made: list[Path], repository: Path) -> None:
    published(store, made[0])
    with pytest.raises(DeploymentError, match="has no branch release"):
        committed(store, GitOps(remote=str(repository), branch="release"))


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


def test_commits_are_signed_by_the_key_of_the_environment(
    store: LocalStore, made: list[Path], repository: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "release", "-f", str(key)], check=True)
    published(store, made[0])
    # Without its last line's end, as variables have it.
    environment = {"MODELMILL_GIT_SIGNING_KEY": key.read_text().strip()}
    settings = GitOps(remote=str(repository), author_email="release@example.org")
    assert committed(store, settings, Credentials.from_environment(environment)).outcome is Outcome.COMMITTED
    signers = tmp_path / "signers"
    signers.write_text(f"release@example.org {key.with_suffix('.pub').read_text()}")
    options = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}")
    assert git(repository, *options, "log", "-1", "--format=%G? %GS", "main").split() == ["G", "release@example.org"]


def test_a_signing_key_that_is_none_is_named_and_not_shown(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    published(store, made[0])
    with pytest.raises(DeploymentError, match="cannot be signed") as caught:
        committed(store, GitOps(remote=str(repository)), Credentials(signing_key="no key at all"))
    assert caught.value.where == "MODELMILL_GIT_SIGNING_KEY"
    assert "no key at all" not in str(caught.value)
    assert len(commits(repository)) == 1


def test_ssh_takes_the_key_of_the_environment_and_no_host_that_is_not_known(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    published(store, made[0])
    with ssh_git_server() as server:
        remote = address(server, repository)
        settings = GitOps(remote=remote, known_hosts=server.known_hosts)
        credentials = Credentials.from_environment({"MODELMILL_GIT_SSH_KEY": server.key.strip()})
        assert committed(store, settings, credentials).outcome is Outcome.COMMITTED
        assert len(commits(repository)) == 2
        with pytest.raises(GitError, match="lets nobody in"):
            committed(store, GitOps(remote=remote, known_hosts="other.example ssh-ed25519 AAAA"), credentials)
        with pytest.raises(GitError, match="lets nobody in"):
            committed(store, settings, Credentials(ssh_key="no key at all"))


def race(tmp_path: Path, store: LocalStore, made: list[Path], remote: str, kind: str) -> list[list[Any]]:
    """What became of five writers' four promotions each: (move, outcome, words)."""
    names = [published(store, directory, channel="first")["bundle"] for directory in made]
    (tmp_path / "bundles.json").write_text(json.dumps(names))
    command = [sys.executable, git_writers.__file__, store.uri, remote, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


def test_five_writers_with_four_promotions_each_of_their_own_channels_all_land(
    tmp_path: Path, store: LocalStore, made: list[Path], repository: Path
) -> None:
    found = race(tmp_path, store, made, str(repository), "own")
    assert [outcome for _, outcome, _ in found] == ["committed"] * 20
    assert len(commits(repository)) == 21
    for writer in range(5):
        path = f"overlays/banking/lane-{writer}/promotion/kustomization.yaml"
        subjects = git(repository, "log", "--format=%s", "main", "--", path).splitlines()
        assert len(subjects) == 4
        assert "modelmill.dev/move: '4'" in file_of(repository, path)


def test_of_writers_on_one_channel_each_lands_or_is_told_that_a_newer_one_did(
    tmp_path: Path, store: LocalStore, made: list[Path], repository: Path
) -> None:
    found = race(tmp_path, store, made, str(repository), "same")
    landed = sum(outcome == "committed" for _, outcome, _ in found)
    assert landed == len(commits(repository)) - 1
    assert len(found) == 20
    for _, outcome, words in found:
        assert outcome in ("committed", "unchanged", "newer")
        assert outcome != "newer" or "which is newer than move" in words
    moves = [
        int(line.split("'")[1])
        for line in git(repository, "log", "-p", "--reverse", "--format=", "main", "--", COMPONENT).splitlines()
        if line.startswith("+") and "modelmill.dev/move" in line
    ]
    assert moves == sorted(set(moves))
    shown = registry.show_channel(store, "banking", "staging")
    assert shown is not None
    assert moves[-1] == shown.arrived.number
    assert yaml.safe_load(file_of(repository, COMPONENT))["commonAnnotations"]["modelmill.dev/bundle"] == shown.bundle


def test_a_writer_killed_between_the_registry_and_git_is_made_good_by_the_next_run(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    published(store, made[0], git=settings)
    # The registry moved, and the commit was never made.
    digest = published(store, made[1])["bundle"]
    facts = published(store, made[1], run="run-2", git=settings)
    assert (facts["moved"], facts["git"]["outcome"]) == (False, "committed")
    assert yaml.safe_load(file_of(repository, COMPONENT))["commonAnnotations"]["modelmill.dev/bundle"] == digest


def test_a_pin_in_git_holds_the_run_s_promotion_back_in_words(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    pinned = "commonAnnotations: {modelmill.dev/pinned: 'true'}\ncomponents: [promotion]\n"
    commit_files(repository, {f"{FOLDER}/kustomization.yaml": pinned})
    facts = published(store, made[0], git=settings)
    assert facts["git"]["outcome"] == "held back"
    assert facts["held"].startswith("held back by a pin in Git")


def review_of(server: GitServer, provider: str, **changes: Any) -> GitOps:
    api = {"github": f"{server.address}/api/github", "gitlab": f"{server.address}/api/v4"}[provider]
    review = {"provider": provider, "api": api, "project": "org/overlays.git", **changes}
    return GitOps.model_validate({"remote": f"{server.address}/git/overlays.git", "review": review})


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_a_reviewed_promotion_is_one_branch_and_one_pull_request(
    store: LocalStore, made: list[Path], repository: Path, server: GitServer, provider: str
) -> None:
    digest = published(store, made[0])["bundle"]
    settings = review_of(server, provider)
    server.failing = 1
    for _ in range(2):
        done = committed(store, settings)
        assert done.outcome is Outcome.PROPOSED
    [pull] = server.pulls
    assert done.pull_request == pull.get("html_url", pull.get("web_url"))
    assert pull["_base"] == "main"
    assert digest in str(pull["sent"])
    assert len(commits(repository)) == 1
    assert yaml.safe_load(file_of(repository, COMPONENT, pull["_head"]))["kind"] == "Component"
    # A person merges it.
    git(repository, "update-ref", "refs/heads/main", f"refs/heads/{pull['_head']}")
    assert committed(store, settings).outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("provider", ["github", "gitlab"])
def test_a_pull_request_that_a_person_closed_is_not_opened_again(
    store: LocalStore, made: list[Path], server: GitServer, provider: str
) -> None:
    published(store, made[0])
    settings = review_of(server, provider)
    committed(store, settings)
    server.pulls[0]["state"] = "closed"
    done = committed(store, settings)
    assert done.outcome is Outcome.HELD
    assert done.words.endswith("is closed")
    assert len(server.pulls) == 1


@pytest.mark.parametrize("provider", ["github", "gitlab"])
@pytest.mark.parametrize(
    ("changes", "token", "told"),
    [
        ({"project": "org/other"}, TOKEN, r"refuses \(404\)"),
        ({}, "wrong-api-token", r"refuses \(401\): Bad cred.* \*\*\*"),
    ],
)
def test_an_api_that_refuses_is_named_without_the_token(
    store: LocalStore, made: list[Path], server: GitServer, provider: str, changes: Any, token: str, told: str
) -> None:
    published(store, made[0])
    with pytest.raises(GitError, match=told) as caught:
        committed(store, review_of(server, provider, **changes), Credentials(USER, TOKEN, api_token=token))
    assert token not in str(caught.value)


def test_only_the_channels_that_are_named_are_reviewed(store: LocalStore, made: list[Path], server: GitServer) -> None:
    published(store, made[0])
    assert committed(store, review_of(server, "github", channels=["production"])).outcome is Outcome.COMMITTED
    assert server.pulls == []


BAD: list[tuple[dict[str, Any], str]] = [
    ({"remote": "https://user:pass@example.org/r.git"}, "credentials do not belong into the address"),
    ({"remote": "https://token@example.org/r.git"}, "credentials do not belong into the address"),
    ({"remote": "ext::sh -c id"}, "no http, https, ssh or file URL"),
    ({"remote": "--upload-pack=id"}, "no http, https, ssh or file URL"),
    ({"remote": "../here"}, "no http, https, ssh or file URL"),
    ({"remote": "/r", "branch": "-x"}, "cannot name a branch"),
    ({"remote": "/r", "branch": "a..b"}, "cannot name a branch"),
    ({"remote": "/r", "overlay": "../{model}"}, "no path inside the repository"),
    ({"remote": "/r", "overlay": "o/{name}"}, "no path inside the repository"),
    ({"remote": "/r", "image": "serving:latest"}, "image"),
    ({"remote": "/r", "brunch": "x"}, "did you mean branch"),
]


@pytest.mark.parametrize(("document", "told"), BAD)
def test_wrong_settings_are_refused_by_field(document: dict[str, Any], told: str) -> None:
    with pytest.raises(DeploymentError, match=told):
        validate(GitOps, document, "deployment", DeploymentError)


@pytest.mark.parametrize(
    "remote", ["https://example.org/r.git", "ssh://git@example.org:22/r", "git@example.org:o/r.git"]
)
def test_usual_addresses_are_taken(remote: str) -> None:
    assert GitOps(remote=remote).remote == remote


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


def test_a_branch_whose_history_was_rewritten_gets_the_promotion_on_what_it_is_now(
    store: LocalStore, made: list[Path], repository: Path
) -> None:
    settings = GitOps(remote=str(repository))
    published(store, made[0], git=settings)
    git(repository, "update-ref", "-d", "refs/heads/main")
    git(repository, "read-tree", "--empty")
    commit_files(repository, {"README.md": "begun anew\n"})
    published(store, made[1], git=settings)
    assert len(commits(repository)) == 2
    assert file_of(repository, "README.md") == "begun anew\n"
    assert "modelmill.dev/move: '2'" in file_of(repository, COMPONENT)


def test_only_publish_is_started_with_the_keys_of_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELMILL_GIT_TOKEN", TOKEN)
    assert process.environment_of("publish")["MODELMILL_GIT_TOKEN"] == TOKEN
    assert "MODELMILL_GIT_TOKEN" not in process.environment_of("fetch")


def test_nothing_is_left_on_the_disk(
    store: LocalStore, made: list[Path], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(store, made[0])
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setitem(os.environ, "GIT_DIR", "/nowhere")
    committed(store, GitOps(remote=str(repository)))
    assert list(folder.iterdir()) == []
