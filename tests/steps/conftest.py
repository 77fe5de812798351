"""Lanes that several steps' tests look at, each made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lane_steps import Facts, make_rows, run_export, run_optimize
from small_models import make_checkpoint

ARCHITECTURES = ("bert", "roberta", "distilbert", "electra")


@dataclass(frozen=True)
class Lane:
    """Where a small model's artifacts lie, and what the steps said of them."""

    checkpoint: Path
    exported: Path
    optimized: Path
    rows: Path
    export_facts: Facts
    optimize_facts: Facts


@pytest.fixture(scope="session")
def lane_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Lane]:
    """Exports and optimizes a random model of an architecture, once in a session. Read-only."""
    made: dict[str, Lane] = {}

    def lane(architecture: str) -> Lane:
        if architecture not in made:
            here = tmp_path_factory.mktemp(architecture)
            # ELECTRA's default embeddings are wider than the tiny hidden size; DistilBERT names its sizes itself.
            names: dict[str, int] = {"embedding_size": 32} if architecture == "electra" else {}
            if architecture == "distilbert":
                names = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
            make_checkpoint(here / "checkpoint", architecture, labels=["alpha", "beta", "gamma"], **names)
            # One of them in another opset than the default: the same steps must take it.
            opset = {"opset": 18} if architecture == "distilbert" else {}
            exported = run_export(here / "checkpoint", here / "exported", **opset)
            optimized = run_optimize(here / "exported", here / "optimized")
            rows = make_rows(here / "rows", 60)
            paths = (here / "checkpoint", here / "exported", here / "optimized", rows)
            made[architecture] = Lane(*paths, exported, optimized)
        return made[architecture]

    return lane
