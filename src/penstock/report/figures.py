"""Numbers as people read them: three digits that count, and a unit."""

from __future__ import annotations

from math import isfinite, isnan


def three_digits(value: float) -> str:
    """Three digits that count, as people write them."""
    if not isfinite(value):
        return "not a number" if isnan(value) else "infinite"
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    if abs(rounded) >= 1000:
        return f"{rounded:,.0f}"
    if abs(rounded) < 1e-3:
        digits, _, exponent = f"{rounded:.2e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{rounded:#.3g}".rstrip(".")


def time_unit(seconds: float) -> tuple[float, str]:
    return (1e6, "µs") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1.0, "s")


def seconds_text(seconds: float) -> str:
    scale, unit = time_unit(seconds)
    return f"{three_digits(seconds * scale)} {unit}"


def byte_unit(size: float) -> tuple[float, str]:
    return (1e-9, "GB") if size >= 1e9 else (1e-6, "MB") if size >= 1e6 else (1e-3, "kB")


def bytes_text(size: int) -> str:
    scale, unit = byte_unit(size)
    return f"{three_digits(size * scale)} {unit}"


def share_text(part: float) -> str:
    """In percent; only all of them is 100."""
    return "100 %" if part >= 1 else f"{min(part * 100, 99.999):.5g} %"


def count_text(number: int, noun: str, plural: str = "s") -> str:
    return f"{number:,} {noun}{'' if number == 1 else plural}"
