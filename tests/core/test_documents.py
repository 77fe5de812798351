from __future__ import annotations

from pathlib import Path

import pytest

from modelmill.core.documents import nearest, parse_yaml, read_mapping
from modelmill.core.errors import RecipeError


def test_a_number_with_an_exponent_is_a_number() -> None:
    assert parse_yaml("2e-4", "here", RecipeError) == 0.0002
    assert parse_yaml("a: [1e3, -2E+1, text]", "here", RecipeError) == {"a": [1000.0, -20.0, "text"]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "stands here twice"),
        ("a: &x 1\nb: *x\n", "aliases are not used"),
        ("a: [1, 2\n", "not valid YAML"),
        ("1: a\n", "is not text"),
        ("a: !!python/object/apply:os.system [echo]\n", "not valid YAML"),
        ("a: b: c\n", "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_named_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem) as caught:
        parse_yaml(text, "recipe.yaml", RecipeError)
    assert "recipe.yaml, line" in str(caught.value.where)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"- a\n- b\n", "holds a list"),
        (b"", "holds nothing"),
        (b"text", "holds one text"),
        (b"name: \xff\xfe", "not UTF-8"),
        (b"#" * (1 << 21), "at most"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=problem):
        read_mapping(path, RecipeError, "recipe")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"there is no recipe .*nowhere\.yaml"):
        read_mapping(tmp_path / "nowhere.yaml", RecipeError, "recipe")
    with pytest.raises(RecipeError, match="is a directory"):
        read_mapping(tmp_path, RecipeError, "recipe")


def test_the_nearest_name_forgives_hyphens_and_letters() -> None:
    assert nearest("max-drop-point", ["max_drop_points", "confidence"]) == "max_drop_points"
    assert nearest("zzz", ["max_drop_points", "confidence"]) is None
