"""The one error that a user can mend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


class InputError(ValueError):
    """The file, option or array you gave cannot be used; the message says what to change."""


def check_thresholds(thresholds: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a threshold that is outside its range (both ends are allowed), or NaN."""
    for name, value in thresholds.items():
        check_number(name, value, *ranges[name])


def check_number(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number that is outside its range (both ends are allowed), infinite, or NaN."""
    if not low <= value <= high or not math.isfinite(value):
        expected = f"between {low:g} and {high:g}" if math.isfinite(high) else f"a finite number of at least {low:g}"
        raise InputError(f"{name} is {value}; it must be {expected}.")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number that is outside its range (both ends are allowed), or NaN."""
    if not low <= value <= high:
        raise InputError(f"{name} is {value}; it must be between {low:,} and {high:,}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        raise InputError(f'{name} = "{value}" is not known; it can be {", ".join(choices)}.')
