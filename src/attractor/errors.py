"""The one error that a user can mend."""


class InputError(ValueError):
    """The file, option or array you gave cannot be used; the message says what to change."""
