"""Bundles published to a local store and committed to a Git repository, as a run does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from git_servers import TOKEN, USER
from lane_artifacts import publish_settings
from modelmill.core import manifest
from modelmill.core.contract import PortType
from modelmill.core.progress import SilentProgress
from modelmill.core.store import Store
from modelmill.steps.publish.git_credentials import Credentials
from modelmill.steps.publish.gitops import Committed, Patience, release
from modelmill.steps.publish.gitops_settings import GitOps
from modelmill.steps.publish.promote import promote

FOLDER = "overlays/banking/staging"
COMPONENT = f"{FOLDER}/promotion/kustomization.yaml"
QUICK = Patience(away=2, away_seconds=0.01, race_seconds=0.01)
SILENT = SilentProgress()
ALLOWED = Credentials(username=USER, token=TOKEN, api_token=TOKEN)


def published(store: Store, directory: Path, **settings: Any) -> dict[str, Any]:
    """Publish as a run does: the effect's facts."""
    found = manifest.build(directory, PortType.BUNDLE)
    store.put_artifact(directory, found, SILENT)
    outputs = {"bundle": (store.get_artifact(found.digest, SILENT), found.digest)}
    return dict(promote(store, outputs, publish_settings(**settings), SILENT).facts)


def committed(store: Store, settings: GitOps, credentials: Credentials = ALLOWED) -> Committed:
    return release(store, settings, "banking", "staging", SILENT, credentials, QUICK)
