"""The licence that a model's card names: read, and no part of the model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modelmill.steps.fetch.licence import take_licence
from modelmill.steps.fetch.sources.base import Fetched


def fetched(folder: Path, name: str, content: bytes) -> Fetched:
    (folder / name).write_bytes(content)
    return Fetched(name, folder / name, name, hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\ntags: []\n---\n# A model\n", "apache-2.0"),
        ("---\r\nlicense: 'MIT'\r\n---\r\n", "mit"),
        ("---\nlicense: [a, b]\n---\n", None),
        ("---\nlicense: some words | of `mine`\n---\n", None),
        ("---\nlicense_name: own\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("", None),
        ("---\nlicense: \xff\xfe\n", None),
    ],
)
def test_a_licence_is_read_from_the_front_matter_alone(tmp_path: Path, text: str, licence: str | None) -> None:
    config = fetched(tmp_path, "config.json", b"{}")
    card = fetched(tmp_path, "README.md", text.encode("latin-1"))
    assert take_licence([card, config]) == ([config], licence)
    assert not card.path.exists()


def test_without_a_card_no_licence_is_known(tmp_path: Path) -> None:
    config = fetched(tmp_path, "config.json", b"{}")
    assert take_licence([config]) == ([config], None)
