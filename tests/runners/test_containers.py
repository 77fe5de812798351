"""What a container is told apart by, and whose secrets it gets."""

from __future__ import annotations

from environments import ROOT
from modelmill import recipe as recipes
from modelmill.deployment import Deployment, SecretEnv
from modelmill.line import Job
from modelmill.runners.containers import GIT_VARIABLE, STEP_LABEL, ZONE_LABEL, Container, describe
from modelmill.runners.parameters import decoded
from modelmill.steps.publish.gitops_settings import GitOps

DEMO = ROOT / "pipelines" / "recipes" / "demo.yaml"


def _containers(deployment: Deployment) -> dict[str, Container]:
    return {item.id: item for item in describe(Job(recipes.load(DEMO), deployment)).containers}


def test_labels_name_the_step_and_publish_alone_is_of_the_release_zone() -> None:
    found = _containers(Deployment(store="s3://models/line"))
    assert {name for name, item in found.items() if item.labels[ZONE_LABEL] == "release"} == {"publish"}
    assert {item.labels[ZONE_LABEL] for item in found.values()} == {"release", "untrusted"}
    assert found["export.cpu-int8"].labels[STEP_LABEL] == "export"
    assert {found[name].labels[STEP_LABEL] for name in ("begin", "fetch", "finish")} == {"begin", "fetch", "finish"}


def test_publish_alone_is_told_of_the_git_repository() -> None:
    git = GitOps(remote="https://git.example/org/overlays.git")
    found = _containers(Deployment(store="s3://models/line", git=git))
    assert {name for name, item in found.items() if GIT_VARIABLE in item.env} == {"publish"}
    assert decoded(found["publish"].env[GIT_VARIABLE], "") == git.model_dump(mode="json")
    assert not any(GIT_VARIABLE in item.env for item in _containers(Deployment(store="s3://models/line")).values())


def test_a_release_secret_stands_for_that_of_all_steps_in_publish_alone() -> None:
    key = SecretEnv(name="AWS_SECRET_ACCESS_KEY", secret="work", key="secret")
    user = SecretEnv(name="AWS_ACCESS_KEY_ID", secret="work", key="user")
    own = SecretEnv(name="AWS_SECRET_ACCESS_KEY", secret="release", key="secret")
    found = _containers(Deployment(store="s3://models/line", secrets=[key, user], release_secrets=[own]))
    assert list(found["publish"].secrets) == [own, user]
    assert all(list(item.secrets) == [key, user] for name, item in found.items() if name != "publish")
