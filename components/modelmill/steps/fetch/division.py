"""Rows by split become rows by role.

Who is taken is decided by the sha256 of seed, role and row id, never by a random generator: it is the same in every
process, on every platform and under every Python, and it does not change for one row when another is added.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from modelmill.core.errors import DataError, RecipeError
from modelmill.core.rows import Role, Row
from modelmill.steps.fetch.contract import DataSource

LabelOf = Callable[[Row], str | None]


def _order(row: Row, seed: str) -> str:
    return hashlib.sha256(f"{seed}:{row['id']}".encode()).hexdigest()


def _strata(rows: Sequence[Row], label_of: LabelOf, seed: str) -> dict[str, list[int]]:
    """Label → positions of its rows, in the order in which they are taken. Rows without labels are one stratum."""
    strata: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        strata[label_of(row) or ""].append(position)
    return {label: sorted(strata[label], key=lambda position: _order(rows[position], seed)) for label in sorted(strata)}


def _quotas(sizes: Mapping[str, int], count: int, least: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    """Share ``count`` over strata in proportion to their sizes, by largest remainders, within bounds."""
    total = sum(sizes.values())
    exact = {label: Fraction(size * count, total) for label, size in sizes.items()}
    quotas = {label: min(max(int(exact[label]), least[label]), most[label]) for label in sizes}
    by_need = sorted(sizes, key=lambda label: (-(exact[label] - int(exact[label])), label))
    while sum(quotas.values()) != count:
        step = 1 if sum(quotas.values()) < count else -1
        bound = most if step > 0 else least
        movable = [label for label in by_need if quotas[label] != bound[label]]
        if not movable:
            break
        furthest = max(movable, key=lambda label: (step * (exact[label] - quotas[label]), -by_need.index(label)))
        quotas[furthest] += step
    return quotas


def hold_out(rows: Sequence[Row], label_of: LabelOf, share: Fraction, seed: str) -> tuple[list[Row], list[Row]]:
    """Divide rows into (held out, rest), each in the order of ``rows``.

    Stratified by label: of every label with two rows or more at least one stays in the rest.
    """
    strata = _strata(rows, label_of, seed)
    sizes = {label: len(positions) for label, positions in strata.items()}
    most = {label: size - 1 for label, size in sizes.items()}
    quotas = _quotas(sizes, round(len(rows) * share), dict.fromkeys(sizes, 0), most)
    taken = {position for label, positions in strata.items() for position in positions[: quotas[label]]}
    held = [row for position, row in enumerate(rows) if position in taken]
    return held, [row for position, row in enumerate(rows) if position not in taken]


def limited(rows: Sequence[Row], label_of: LabelOf, limit: int, seed: str) -> list[Row]:
    """At most ``limit`` rows in their order, stratified; every label keeps a row where the limit has room for all."""
    if limit >= len(rows):
        return list(rows)
    strata = _strata(rows, label_of, seed)
    sizes = {label: len(positions) for label, positions in strata.items()}
    least = dict.fromkeys(sizes, 1 if limit >= len(sizes) else 0)
    quotas = _quotas(sizes, limit, least, sizes)
    taken = {position for label, positions in strata.items() for position in positions[: quotas[label]]}
    return [row for position, row in enumerate(rows) if position in taken]


def splits_of(data: DataSource) -> list[str]:
    """The splits that a recipe reads, train first.

    Raises:
        RecipeError: Rows that judge would choose too, the share makes no sense, or a limit is for no role.
    """
    for role, limit in data.limit.items():
        if role not in list(Role):
            what = f"data.limit names {role!r}, which is no role"
            raise RecipeError(what, where="data.limit", fix=f"use: {', '.join(Role)}")
        if limit < 1:
            what = f"data.limit.{role} is {limit}, and no rows are no data"
            raise RecipeError(what, where=f"data.limit.{role}", fix="give 1 or more, or leave the limit out")
    if data.evaluate in (data.train, data.tune, data.calibrate):
        what = f"the split {data.evaluate!r} would both choose the model and judge it"
        raise RecipeError(what, where="data.evaluate", fix="name a split that train, tune and calibrate don't use")
    if isinstance(data.tune, str):
        if data.tune == data.train:
            what = f"the split {data.tune!r} would be trained on and stop the training"
            raise RecipeError(what, where="data.tune", fix="give a share to hold out, such as 0.15, or another split")
    elif not 0 < data.tune < 1:
        what = f"data.tune is {data.tune:g}, and a share lies between 0 and 1"
        raise RecipeError(what, where="data.tune", fix="give a share to hold out, such as 0.15, or the name of a split")
    tune = [data.tune] if isinstance(data.tune, str) else []
    return list(dict.fromkeys([data.train, *tune, data.calibrate, data.evaluate]))


def divide(splits: Mapping[str, Sequence[Row]], data: DataSource, label_of: LabelOf) -> dict[Role, list[Row]]:
    """Rows by role. Calibration rows out of train are what the hold-out left.

    Raises:
        DataError: The share holds out no row, or leaves none to train on.
    """
    train = list(splits[data.train])
    if isinstance(data.tune, str):
        tune = list(splits[data.tune])
    else:
        before = len(train)
        tune, train = hold_out(train, label_of, Fraction(str(data.tune)), f"{data.seed}:{Role.TUNE}")
        if not tune or not train:
            left = f"{len(tune)} rows to tune and {len(train)} to train"
            what = f"data.tune {data.tune:g} of the {before} rows of {data.train} leaves {left}"
            raise DataError(what, where="data.tune", fix="give a share that leaves rows for both, or more rows")
    calibrate = train if data.calibrate == data.train else list(splits[data.calibrate])
    roles = {Role.TRAIN: train, Role.TUNE: tune, Role.CALIBRATE: calibrate, Role.EVALUATE: list(splits[data.evaluate])}
    return {
        role: limited(rows, label_of, data.limit[role], f"{data.seed}:limit:{role}")
        if role in data.limit
        else list(rows)
        for role, rows in roles.items()
    }
