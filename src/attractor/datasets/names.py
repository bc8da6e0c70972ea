"""Which names images and classes may have, so that what is written under a name reads back the same on any system."""

from __future__ import annotations

import reprlib
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path, PureWindowsPath

from attractor.errors import InputError

_CONTROL = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters and of separators of lines and paragraphs


def leads_out(name: str) -> bool:
    """Whether a file name points outside of the folder that it starts from, on any system."""
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or parts[0] == "" or parts[0][1:2] == ":" or "\0" in name


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8: half of a surrogate pair, which JSON can hold, is no character."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_class_name(value: object, key: str) -> str:
    """A class name from what a file holds under a key.

    Raises:
        InputError: if it is not one; the sentence begins with "its".
    """
    if not isinstance(value, str) or not value or not is_text(value):
        raise InputError(f"its {key} is {reprlib.repr(value)} where a name should be")
    return value


def check_stem(name: str, where: str | Path) -> None:
    """Refuse the name of an image that no file can have, or whose file would be passed over when read.

    Raises:
        InputError: the message begins with `where`.
    """
    if not name:
        fault = "has no name"
    elif name.startswith("."):
        fault = "begins with a dot, as hidden files do"
    elif PureWindowsPath(name).name != name or "\0" in name:
        fault = "leads to another folder"
    elif not is_text(name):
        fault = "cannot be written as UTF-8"
    elif any(unicodedata.category(letter) in _CONTROL for letter in name):
        fault = "holds a line break or another control character"
    else:
        return
    raise InputError(f"{where}: the name of the image {reprlib.repr(name)} {fault}; rename the image.")


def check_class_names(class_names: Sequence[str], where: str | Path, *, reserved: Collection[str] = ()) -> None:
    """Refuse names of classes that would not read back as they are.

    Args:
        class_names: name of class 1, 2, …
        where: what the message begins with.
        reserved: names that mean something else in the layout.

    Raises:
        InputError: if a name is empty, reserved or there twice, or cannot be written as UTF-8.
    """
    for number, name in enumerate(class_names, 1):
        if not name:
            fault = "has no name"
        elif not is_text(name):
            fault = "cannot be written as UTF-8"
        elif name in reserved:
            fault = "has a name that means something else here"
        elif name in class_names[: number - 1]:
            fault = f"has the name of class {1 + class_names.index(name)}, so that the two could not be told apart"
        else:
            continue
        raise InputError(f"{where}: class {number}, {reprlib.repr(name)}, {fault}; rename the class.")
