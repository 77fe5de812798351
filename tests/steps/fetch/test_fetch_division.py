"""Rows by role: stratified, separate, and decided by the rows alone."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelmill.core.rows import Role, Row
from modelmill.steps.fetch.contract import DataSource
from modelmill.steps.fetch.division import divide, hold_out, limited
from modelmill.steps.fetch.validation import labels_of


def rows_of(counts: dict[str, int]) -> list[Row]:
    """Rows of each label, the labels mixed."""
    rows = [{"label": label, "text": f"{label}{n}"} for label, count in counts.items() for n in range(count)]
    return [{"id": f"train.jsonl:{number}", **row} for number, row in enumerate(sorted(rows, key=str), start=1)]


def label_of(row: Row) -> str:
    return str(row["label"])


COUNTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 40), min_size=1)


@given(COUNTS, st.fractions(Fraction(1, 50), Fraction(49, 50)))
def test_a_hold_out_takes_each_label_in_proportion_and_leaves_it_a_row(counts, share):
    rows = rows_of(counts)
    held, rest = hold_out(rows, label_of, share, "seed")
    assert sorted([*held, *rest], key=str) == sorted(rows, key=str)
    assert [row for row in rows if row in held] == held
    left, taken = Counter(map(label_of, rest)), Counter(map(label_of, held))
    assert set(left) == set(counts)
    room = sum(count - 1 for count in counts.values())
    assert len(held) == min(round(len(rows) * share), room)
    for label, count in counts.items():
        if len(held) < room:
            assert taken[label] <= count * share + 2


@given(COUNTS, st.integers(1, 200))
def test_a_limit_keeps_every_label_where_there_is_room_and_the_order_of_the_rows(counts, limit):
    rows = rows_of(counts)
    kept = limited(rows, label_of, limit, "seed")
    assert len(kept) == min(limit, len(rows))
    assert [row for row in rows if row in kept] == kept
    if limit >= len(counts):
        assert {label_of(row) for row in kept} == set(counts)


def test_another_seed_takes_other_rows_and_the_same_seed_the_same():
    rows = rows_of({"a": 100, "b": 100})
    first, again, other = (hold_out(rows, label_of, Fraction(1, 5), seed)[0] for seed in ("1", "1", "2"))
    assert first == again
    assert 5 < len([row for row in first if row not in other]) < 40


def test_who_is_held_out_is_pinned_across_versions_and_platforms():
    held, _ = hold_out(rows_of({"a": 10, "b": 5}), label_of, Fraction(1, 3), "0:tune")
    assert [row["id"] for row in held] == [
        "train.jsonl:1",
        "train.jsonl:2",
        "train.jsonl:8",
        "train.jsonl:13",
        "train.jsonl:15",
    ]


def test_calibration_rows_come_out_of_what_the_hold_out_left_and_roles_have_their_own_limits():
    train, test = rows_of({"a": 60, "b": 40}), rows_of({"a": 20, "b": 20})
    data = DataSource(source="file:/x", tune=0.15, limit={"train": 30, "calibrate": 20, "tune": 10, "evaluate": 8})
    roles = divide({"train": train, "test": test}, data, label_of)
    assert {role: len(rows) for role, rows in roles.items()} == {
        "train": 30,
        "tune": 10,
        "calibrate": 20,
        "evaluate": 8,
    }
    tune = {
        row["id"] for row in divide({"train": train, "test": test}, DataSource(source="file:/x"), label_of)[Role.TUNE]
    }
    assert len(tune) == 15
    assert not tune & {row["id"] for row in [*roles[Role.TRAIN], *roles[Role.CALIBRATE]]}
    assert Counter(map(label_of, roles[Role.TRAIN])) == {"a": 18, "b": 12}


def test_a_limit_above_the_rows_takes_them_all():
    rows = rows_of({"a": 3, "b": 4})
    assert limited(rows, label_of, 1000, "seed") == rows


def test_rows_without_labels_are_one_stratum():
    held, rest = hold_out(rows_of({"a": 10}), lambda row: None, Fraction(1, 5), "seed")
    assert (len(held), len(rest)) == (2, 8)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (["10", "9", "-1", "0"], ["-1", "0", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["007", "1"], ["007", "1"]),
        (["ä", "b", "B"], ["B", "b", "ä"]),
    ],
)
def test_labels_are_in_the_order_of_whole_numbers_or_of_their_characters(found, order):
    assert labels_of(found) == order
