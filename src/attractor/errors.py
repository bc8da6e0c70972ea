"""The one error that a user can mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class InputError(ValueError):
    """The file, option or array you gave cannot be used; the message says what to change."""


def check_thresholds(thresholds: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse a threshold outside its range, lowest and highest included, or that is not a number."""
    for name, value in thresholds.items():
        low, high = ranges[name]
        if not low <= value <= high:
            raise InputError(f"{name} is {value}; it must lie between {low:g} and {high:g}.")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside its range, lowest and highest included, or that is none."""
    if not low <= value <= high:
        raise InputError(f"{name} is {value}; it must be between {low:,} and {high:,}.")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise InputError(f'{name} = "{value}" is not known; it can be {", ".join(choices)}.')
