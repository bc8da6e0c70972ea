"""Wording that several messages share: numbers as people read them, and how to install what is missing."""

from __future__ import annotations

import math


def counted(n: int, one: str, several: str = "") -> str:
    """A number and its noun, as in "1 image" and "1,204 images"."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def install(extra: str) -> str:
    """The sentence that says how to install an extra."""
    return f'To install what is missing, run pip install ".[{extra}]" in a clone of attractor.'


def duration(seconds: float) -> str:
    """A time as people say it, such as "40 seconds", "25 minutes" or "3 h 20 min"."""
    if seconds < 99.5:
        return counted(max(1, round(seconds)), "second")
    minutes = round(seconds / 60)
    if minutes < 100:
        return counted(minutes, "minute")
    return f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def share(value: float) -> str:
    """A share in four characters, such as .812 and 1.00, and a larger number in hundredths; a dash for NaN."""
    if math.isnan(value):
        return "-"
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else f"{value:.2f}"


def printable(text: str, longest: int = 60) -> str:
    """Text from a file, for a message: shortened, and with codes in place of what cannot be printed."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return short if short.isprintable() else repr(short)[1:-1]
