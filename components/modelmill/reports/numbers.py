"""Numbers as people read them. Every function takes any float; what is not finite becomes a dash."""

from __future__ import annotations

import math

DASH = "–"
MINUS = "−"
NO_BREAK = "\u00a0"


def fixed(value: float, decimals: int, *, sign: bool = False) -> str:
    """``1234.5`` → ``1,234.50``, with a true minus; ``sign`` also writes the plus. A rounded zero has no sign."""
    if not math.isfinite(value):
        return DASH
    rounded = round(value, decimals)
    if rounded == 0:
        return f"{0:.{decimals}f}"
    plus = "+" if sign and rounded > 0 else ""
    return plus + f"{rounded:,.{decimals}f}".replace("-", MINUS)


def significant(value: float, digits: int = 3) -> str:
    """``digits`` significant digits without an exponent where that stays short."""
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 15:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return fixed(value, max(0, digits - 1 - magnitude))


def count(value: float) -> str:
    """``3080`` → ``3,080``."""
    return fixed(value, 0)


def percent(share: float, decimals: int = 2) -> str:
    """A share (0 to 1) in percent."""
    return _unit(fixed(100 * share, decimals), "%")


def points(value: float, *, sign: bool = False) -> str:
    """Points: 100 × share."""
    return _unit(fixed(value, 2, sign=sign), "points")


def milliseconds(value: float) -> str:
    """Three significant digits."""
    return _unit(significant(value), "ms")


def times(value: float) -> str:
    """A ratio with two decimals below ten, then three digits: ``2.61×``, ``31.4×``, ``302×``."""
    if not math.isfinite(value):
        return DASH
    return f"{fixed(value, 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0)}×"


def seconds(value: float) -> str:
    """Seconds under two minutes, then minutes, then hours."""
    if not math.isfinite(value):
        return DASH
    if value < 10:
        return _unit(fixed(value, 2), "s")
    if value < 120:
        return _unit(fixed(value, 1), "s")
    whole = round(value)
    if whole < 7200:
        return f"{whole // 60}{NO_BREAK}min {whole % 60}{NO_BREAK}s"
    return f"{whole // 3600}{NO_BREAK}h {whole % 3600 // 60}{NO_BREAK}min"


def size(value: float) -> str:
    """Bytes in decimal units: 1 MB is 1,000,000 bytes."""
    if not math.isfinite(value):
        return DASH
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= factor:
            return _unit(significant(value / factor), unit)
    return _unit(fixed(value, 0), "bytes")


def interval(bounds: tuple[float, float], decimals: int = 2, *, factor: float = 1.0) -> str:
    """``−0.10 to 0.50``."""
    return f"{fixed(factor * bounds[0], decimals)} to {fixed(factor * bounds[1], decimals)}"


def _unit(text: str, unit: str) -> str:
    return text if text == DASH else text + NO_BREAK + unit
