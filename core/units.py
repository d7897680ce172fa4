"""One rule of units for tables, texts and figures: times in ms or s, bytes in powers of ten.

In: milliseconds or bytes. Out: text, or the :class:`Unit` of an axis, which all its numbers share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit. symbol: behind a number; title: on an axis; size: in milliseconds or bytes."""

    symbol: str
    title: str
    size: float

    def scaled(self, values: Iterable[float | None]) -> list[float | None]:
        """Return milliseconds or bytes in this unit; None stays None."""
        return [None if value is None else value / self.size for value in values]

    def write(self, value: float) -> str:
        """Return milliseconds or bytes with three digits that matter, or a little less."""
        number = value / self.size
        if abs(number) >= 99.95 or self.symbol == "B":
            return f"{number:,.0f} {self.symbol}"
        if self.symbol == "ms":
            return f"{number:.{1 if abs(number) >= 1 else 2}f} ms"
        return f"{number:.3g} {self.symbol}"


MILLISECONDS, SECONDS = Unit("ms", "milliseconds", 1.0), Unit("s", "seconds", 1000.0)
BYTES = (
    Unit("GB", "gigabytes", 1e9),
    Unit("MB", "megabytes", 1e6),
    Unit("kB", "kilobytes", 1e3),
    Unit("B", "bytes", 1.0),
)


def time_unit(longest_ms: float) -> Unit:
    """Return the unit for times up to ``longest_ms``: seconds from ten of them."""
    return SECONDS if longest_ms >= 10_000 else MILLISECONDS


def byte_unit(most: float) -> Unit:
    """Return the unit for sizes up to ``most`` bytes."""
    return next((unit for unit in BYTES if abs(most) >= unit.size), BYTES[-1])


def format_ms(value: float) -> str:
    """Write a time on its own."""
    return time_unit(value).write(value)


def format_bytes(value: float) -> str:
    """Write a size on its own."""
    return byte_unit(value).write(value)


def counted(number: int, thing: str) -> str:
    """Write a number with its noun, in the plural where it needs one."""
    ending = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{ending}"
