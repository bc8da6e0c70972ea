"""`images.csv` beside annotations: more about each image, such as its modality, by which scores can then be split.

The first column is `image`, with the stem of each image's file; the others have any name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from attractor.datasets.sample import repeated
from attractor.errors import InputError
from attractor.images import atomic

FILE = "images.csv"


def write_columns(folder: Path, columns: Mapping[str, Mapping[str, str]], names: Iterable[str]) -> None:
    """Write the table, if there is any column, with a row for each of these images.

    Raises:
        InputError: if it cannot be written.
    """
    if not columns:
        return
    with atomic(folder / FILE) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        writer.writerows([name, *(values.get(name, "") for values in columns.values())] for name in names)


def read_columns(folder: Path, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """What the table in a folder says of these images: column, then image, to the value; nothing without a table.

    Raises:
        InputError: if it is no such table, or has no row for any of the images.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); save it as CSV in UTF-8.") from error
    if not header or header[0] != "image":
        raise InputError(
            f"{path}: the first column is {header[0] if header else ''!r}; it must be `image`, with each image's stem."
        )
    if again := repeated(header):
        raise InputError(f"{path}: the column {again!r} is there twice; rename or remove one.")
    wanted = set(names)
    rows = [row for row in rows if row[0] in wanted]
    if again := repeated([row[0] for row in rows]):
        raise InputError(f"{path}: has two rows for the image {again!r}; keep the one that is right.")
    by_name = {row[0]: row[1:] for row in rows}
    if names and not by_name:
        raise InputError(
            f"{path}: no row names an image that is there; the first column must hold stems such as {names[0]!r}."
        )
    return {
        column: {name: values[k] if k < len(values) else "" for name, values in by_name.items()}
        for k, column in enumerate(header[1:])
    }
