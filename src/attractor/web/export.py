"""The objects of a session as files, in the forms that `attractor segment` writes."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from attractor.errors import InputError
from attractor.images import read_image
from attractor.images.calibration import pixel_size
from attractor.instances import Instances, relabel
from attractor.prediction.outputs import OUTPUTS, check_outputs
from attractor.prediction.result import FileOutput, FolderOutput, Output, Result
from attractor.session import Session

MOST_IN_MEMORY = 1 << 24  # bytes of a zip; larger ones are written to the disk


def forms(class_names: Sequence[str]) -> list[str]:
    """The names in OUTPUTS of what can be written for these classes with what is installed here."""
    able = []
    for form in OUTPUTS:
        with suppress(InputError):
            check_outputs([form], class_names)
            able.append(form)
    return able


def file_output(form: str, class_names: Sequence[str]) -> FileOutput:
    """The output of this name, if it is for single images.

    Raises:
        InputError: if it is not, or cannot be written for these classes.
    """
    output = OUTPUTS.get(form)
    if isinstance(output, FolderOutput):
        able = [key for key, one in OUTPUTS.items() if isinstance(one, FileOutput)]
        raise InputError(f"The form {form} is not for single images; there are {', '.join(able)}.")
    check_outputs([form], class_names)
    assert output is not None
    return output


def exported(session: Session, names: list[str], form: str) -> IO[bytes]:
    """A zip with the objects of images, in a form that `attractor segment` writes; it is removed when it is closed."""
    check_outputs([form], session.class_names)
    output, file = OUTPUTS[form], tempfile.SpooledTemporaryFile(MOST_IN_MEMORY)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            for path, content in _files(output, name, _result(session, name)):
                archive.writestr(path, content)
    file.seek(0)
    return file


def _files(output: Output, name: str, result: Result) -> Iterator[tuple[str, bytes]]:
    """Names and contents of what is written for an image."""
    if isinstance(output, FileOutput):
        yield f"{name}{output.ending}", output.encode(result)
        return
    # such folders hold lists of files, in which a space ends a name
    result = replace(result, name=re.sub(r"\s", "_", result.name))
    with tempfile.TemporaryDirectory(prefix="attractor-") as folder:
        output.write(Path(folder), result)
        for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def parts_of(file: IO[bytes]) -> Iterator[bytes]:
    """A file's content, after which it is closed."""
    with file:
        while part := file.read(1 << 20):
            yield part


def _result(session: Session, name: str) -> Result:
    """An image and its objects, as outputs take them."""
    path = session.path(name)
    with session.looking(name) as canvas:
        labels, ids = relabel(canvas.labels)
        things = [canvas.things[int(label)] for label in ids]
    classes = np.array([thing.class_number for thing in things], np.int32)
    scores = np.array([1.0 if thing.score is None else thing.score for thing in things], np.float32)
    found = Instances(labels, classes, scores)
    return Result(path.name, read_image(path), found, session.class_names, pixel_size(path))
