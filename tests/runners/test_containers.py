"""What a container is told apart by, and whose secrets it gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from environments import ROOT
from modelmill import recipe as recipes
from modelmill.core.errors import DeploymentError, RecipeError
from modelmill.deployment import Backend, Deployment, SecretEnv
from modelmill.line import Job
from modelmill.runners.containers import GIT_VARIABLE, MIRRORS_VARIABLE, STEP_LABEL, ZONE_LABEL, Container, describe
from modelmill.runners.parameters import decoded, for_cluster, relative_sources
from modelmill.steps.publish.gitops_settings import GitOps
from modelmill.steps.publish.mirror_settings import Mirrors

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


def test_publish_alone_is_told_of_mirrors_and_the_hub_has_it_run_where_its_client_is() -> None:
    images = {"cpu": "cpu:1", "light": "light:1"}
    for mirrors, image in (({"mlflow": {"address": "https://mlflow.example"}}, "light:1"),
                           ({"hub": {"repository": "org/{model}"}}, "cpu:1")):  # fmt: skip
        given = Deployment.model_validate({"store": "s3://models/line", "images": images, "mirrors": mirrors})
        found = _containers(given)
        assert {name for name, item in found.items() if MIRRORS_VARIABLE in item.env} == {"publish"}
        told = Mirrors.model_validate(decoded(found["publish"].env[MIRRORS_VARIABLE], ""))
        assert told == given.mirrors
        assert (found["publish"].image, found["begin"].image) == (image, "light:1")


def test_a_release_secret_stands_for_that_of_all_steps_in_publish_alone() -> None:
    key = SecretEnv(name="AWS_SECRET_ACCESS_KEY", secret="work", key="secret")
    user = SecretEnv(name="AWS_ACCESS_KEY_ID", secret="work", key="user")
    own = SecretEnv(name="AWS_SECRET_ACCESS_KEY", secret="release", key="secret")
    found = _containers(Deployment(store="s3://models/line", secrets=[key, user], release_secrets=[own]))
    assert list(found["publish"].secrets) == [own, user]
    assert all(list(item.secrets) == [key, user] for name, item in found.items() if name != "publish")


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("s3://", "no bucket's name"),
        ("s3://b/line", "3 to 63"),
        ("s3://UP CASE/x", "no bucket's name"),
        ("s3://bucket/../x", "s3://BUCKET/PREFIX"),
        ("s3://bucket/a b", "'a b' holds ' '"),
        ("https://bucket/x", "cannot be opened by https://"),
        (".modelmill", "folder of this machine"),
        ("/tmp/line", "each pod has a folder"),
    ],
)
def test_a_store_that_no_pod_finds_is_refused(store: str, words: str) -> None:
    with pytest.raises(DeploymentError) as caught:
        _containers(Deployment(store=store))
    assert words in str(caught.value)
    assert "deployment: store" in str(caught.value)


def test_a_variable_that_a_task_is_told_by_is_not_a_deployments_to_set() -> None:
    deployment = Deployment(store="s3://bucket/line", env={"MODELMILL_RECIPE": "mine"})
    with pytest.raises(DeploymentError, match=r"env.MODELMILL_RECIPE"):
        describe(Job(recipes.load(DEMO), deployment))


def test_a_directory_is_a_store_for_containers_on_one_machine() -> None:
    assert _containers(Deployment(store="/tmp/line", backend=Backend.DOCKER))


@pytest.mark.parametrize(
    ("source", "relative"),
    [("file:rows", True), ("file://rows", True), ("file:~/rows", True), ("file:/rows", False), ("file:///rows", False)],
)
def test_a_source_in_the_recipes_folder_is_refused_for_a_cluster(tmp_path: Path, source: str, relative: bool) -> None:
    demo = yaml.safe_load(DEMO.read_text("utf-8"))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**demo, "data": {**demo["data"], "source": source}}), "utf-8")
    located = recipes.load(path)
    assert relative_sources(located.recipe) == ({"data.source": source} if relative else {})
    if relative:
        with pytest.raises(RecipeError, match="modelmill push"):
            for_cluster(located)
