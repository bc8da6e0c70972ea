"""Correcting what a model found: a session is a folder, on which pages, programs and the command line all work.

    project/
      project.toml      names of the classes, the model, and what each round of training did
      images/           the pictures, as they were given
      labels/           a label image for each, as corrected so far
      reviewed/         which pixels somebody has looked at: 255, else 0
      objects/          class and score of each label
      edits.jsonl       every operation: when, who, which revision, what it changed
      models/           round-1.safetensors and so on

An operation is data (see `operations`). One function applies it and gives back what it changed, before and after, which
is a line of `edits.jsonl`; to undo it is to write the state before. The line is on disk before anything else is
written, and a session that is opened writes again what its last lines say, so that a program that is killed loses at
most the operation under way, and never a label image.

`attractor.datasets` reads a session as a data set whose pixels count as ignored until somebody has reviewed them.

Shapes: `h` rows, `w` columns; `r` rows and `c` columns of a box.
"""

from __future__ import annotations

from attractor.session.operations import (
    Accept,
    Assign,
    Delete,
    Draw,
    Erase,
    Merge,
    Operation,
    Paint,
    Redraw,
    SetClass,
    Split,
)
from attractor.session.progress import Progress
from attractor.session.session import Session

__all__ = [
    "Accept",
    "Assign",
    "Delete",
    "Draw",
    "Erase",
    "Merge",
    "Operation",
    "Paint",
    "Progress",
    "Redraw",
    "Session",
    "SetClass",
    "Split",
]
