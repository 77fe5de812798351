"""Cron expressions of five fields, as crontab(5) and Airflow have them, and in the form that Kubeflow reads.

Kubeflow reads six fields, the first of them seconds, and takes five without a word for *those* five:
``0 2 * * *`` becomes second 0 of minute 2 of every hour (github.com/robfig/cron v1, Parse: the day of the week is the
optional one). So five fields are asked for here, and a zero for the seconds is put before them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from modelmill.core.errors import UsageError

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()
_WORDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_HORIZON_DAYS = 366 * 9
"""A 29th of February may be eight years away; on one weekday of it, forty: that is not a schedule."""


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _Field("day of the week", 0, 7, tuple(_DAYS)),
)
_ITEM = re.compile(r"(?:(\*)|([a-z]+|[0-9]+)(?:-([a-z]+|[0-9]+))?)(?:/([0-9]+))?")


@dataclass(frozen=True)
class Cron:
    """A schedule.

    Attributes:
        text: Five fields.
        kubeflow: Six.
        minutes, hours, days, months, weekdays: What the fields allow; Sunday is 0.
        either_day: Both kinds of day are restricted, and one of them is enough.
    """

    text: str
    kubeflow: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def after(self, moment: datetime) -> datetime | None:
        """The first time after a moment, in its time zone; None where there is none for years."""
        start = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for offset in range(_HORIZON_DAYS):
            day = start + timedelta(days=offset)
            if not self._on(day):
                continue
            for hour in sorted(self.hours):
                for minute in sorted(self.minutes):
                    found = day.replace(hour=hour, minute=minute)
                    if found >= start:
                        return found
        return None

    def _on(self, day: datetime) -> bool:
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (of_month or of_week if self.either_day else of_month and of_week)


def parse(text: str) -> Cron:
    """Read five fields, or a word such as ``@daily``.

    Raises:
        UsageError: They are not five, one of them is wrong, or no day ever matches.
    """
    fields = _WORDS.get(text.strip().lower(), text).lower().split()
    if len(fields) != len(_FIELDS):
        names = ", ".join(field.name for field in _FIELDS)
        what = f"{text!r} has {len(fields)} fields, and a cron expression five: {names}"
        fix = "write for example '0 2 * * *', at two each night"
        if len(fields) == 6:
            fix = f"leave out the seconds, which Kubeflow is given as 0: '{' '.join(fields[1:])}'"
        raise UsageError(what, where="--cron", fix=fix)
    minutes, hours, days, months, weekdays = (
        _values(item, field, text) for item, field in zip(fields, _FIELDS, strict=True)
    )
    if 7 in weekdays:
        # Sunday has two numbers in crontab(5), and one for Kubeflow.
        weekdays = frozenset(day % 7 for day in weekdays)
        fields[4] = ",".join(str(day) for day in sorted(weekdays))
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    found = Cron(" ".join(fields), " ".join(["0", *fields]), minutes, hours, days, months, weekdays, either)
    if found.after(datetime.now(UTC)) is None:
        what = f"{text!r} names no day that comes"
        raise UsageError(what, where="--cron", fix="look at the day of the month and the month")
    return found


def from_kubeflow(text: str) -> Cron | None:
    """The schedule of six fields that `Cron.kubeflow` wrote; None where they are of another kind."""
    seconds, _, rest = text.partition(" ")
    if seconds != "0":
        return None
    try:
        return parse(rest)
    except UsageError:
        return None


def _values(item: str, field: _Field, whole: str) -> frozenset[int]:
    found: set[int] = set()
    for part in item.split(","):
        match = _ITEM.fullmatch(part)
        if match is None:
            raise _wrong(part, field, whole)
        star, first, last, step = match.groups()
        low = field.low if star else _number(first, field, whole)
        # As Kubeflow reads it, a number with a step goes up to the field's end.
        high = _number(last, field, whole) if last else field.high if star or step else low
        every = int(step) if step else 1
        if high < low or every < 1:
            raise _wrong(part, field, whole)
        # A week of stars ends on Saturday: its Sunday is the 0.
        found.update(range(low, min(high, 6) + 1 if star and field.names == tuple(_DAYS) else high + 1, every))
    return frozenset(found)


def _number(text: str, field: _Field, whole: str) -> int:
    if text in field.names:
        return field.names.index(text) + field.low
    value = int(text) if text.isdecimal() else -1
    if not field.low <= value <= field.high:
        raise _wrong(text, field, whole)
    return value


def _wrong(part: str, field: _Field, whole: str) -> UsageError:
    what = f"{part!r} is no {field.name} of the cron expression {whole!r}"
    names = f" or {field.names[0]}-{field.names[-1]}" if field.names else ""
    fix = f"write {field.low}-{field.high}{names}, *, lists with commas, and steps such as */2"
    return UsageError(what, where="--cron", fix=fix)
