"""The one error that a user can mend."""

from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """The file, option or array you gave cannot be used; the message says what to change."""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise InputError(f'{name} = "{value}" is not known; it can be {", ".join(choices)}.')
