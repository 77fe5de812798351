"""Cron expressions: what they mean, what Kubeflow is given, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from modelmill.core.errors import UsageError
from modelmill.runners.cron import from_kubeflow, parse

NOW = datetime(2026, 11, 22, 10, 30, 15, tzinfo=UTC)
"""A Sunday."""


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("0 2 * * *", "2026-11-23T02:00"),
        ("31 10 * * *", "2026-11-22T10:31"),
        ("30 10 * * *", "2026-11-23T10:30"),
        ("*/20 * * * *", "2026-11-22T10:40"),
        ("5/20 * * * *", "2026-11-22T10:45"),
        ("0 2 * * mon-fri", "2026-11-23T02:00"),
        ("0 2 * * SAT", "2026-11-28T02:00"),
        ("0 2 * * 7", "2026-11-29T02:00"),
        ("0 2 1,15 * *", "2026-12-01T02:00"),
        ("0 2 13 * 5", "2026-11-27T02:00"),
        ("0 2 */2 * 1", "2026-11-23T02:00"),
        ("0 0 29 feb *", "2028-02-29T00:00"),
        ("@weekly", "2026-11-29T00:00"),
    ],
)
def test_the_next_time_is_the_one_that_a_calendar_has(text: str, following: str) -> None:
    found = parse(text).after(NOW)
    assert found is not None
    assert found.isoformat(timespec="minutes") == f"{following}+00:00"


@pytest.mark.parametrize(
    ("text", "kubeflow"),
    [
        ("0 2 * * *", "0 0 2 * * *"),
        ("  0  2 *  * MON ", "0 0 2 * * mon"),
        ("0 2 * * 5-7", "0 0 2 * * 0,5,6"),
        ("@daily", "0 0 0 * * *"),
    ],
)
def test_kubeflow_is_given_a_field_of_seconds(text: str, kubeflow: str) -> None:
    found = parse(text)
    assert found.kubeflow == kubeflow
    back = from_kubeflow(kubeflow)
    assert back == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 fields"),
        ("0 2 * *", "4 fields"),
        ("0 0 2 * * *", "leave out the seconds"),
        ("60 2 * * *", "'60' is no minute"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 2 0 * *", "'0' is no day of the month"),
        ("0 2 * 13 *", "'13' is no month"),
        ("0 2 * * 8", "'8' is no day of the week"),
        ("0 2 * * mo", "'mo' is no day of the week"),
        ("0 5-2 * * *", "'5-2' is no hour"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("0 2 L * *", "no day of the month"),
        ("0 2 , * *", "no day of the month"),
        ("0 0 31 2 *", "no day that comes"),
        ("@often", "1 fields"),
    ],
)
def test_what_is_no_schedule_is_refused_and_says_why(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert caught.value.where == "--cron"


def test_a_schedule_of_another_maker_is_left_as_it_is() -> None:
    assert from_kubeflow("30 0 2 * * *") is None
    assert from_kubeflow("@every 1h") is None
