"""Numbers of a verdict as its sentences write them."""

from __future__ import annotations

from collections.abc import Sequence


def percent(share: float) -> str:
    """A share in percent, as a recipe would write it."""
    return f"{100 * share:.6g} %"


def points(value: float) -> str:
    """Points with two decimals."""
    return f"{value:.2f}"


def listed(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def significant(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in megabytes of a million."""
    return f"{count / 1e6:,.1f} MB"
