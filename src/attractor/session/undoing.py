"""Which operations of a history count, and which of them can be taken back or done again."""

from __future__ import annotations

from collections.abc import Sequence

from attractor.session.canvas import Box
from attractor.session.journal import Record


def standing(history: Sequence[Record]) -> list[Record]:
    """The operations that count: neither taken back, nor a taking back."""
    standing: dict[int, Record] = {}
    taken: dict[int, Record] = {}
    for entry in history:
        if entry.kind == "undo":
            if (gone := standing.pop(entry.operation["of"], None)) is not None:
                taken[gone.revision] = gone
        elif entry.kind == "redo":
            if (back := taken.pop(entry.operation["of"], None)) is not None:
                standing[back.revision] = back
        else:
            standing[entry.revision] = entry
    return list(standing.values())


def last_standing(own: Sequence[Record]) -> Record | None:
    """The last operation of a person that counts."""
    return max(standing(own), key=lambda entry: entry.revision, default=None)


def undone_last(own: Sequence[Record]) -> Record | None:
    """The operation that can be done again: the last one taken back, with only undo and redo after it."""
    taken: list[int] = []
    for entry in own:
        if entry.kind == "undo":
            taken.append(entry.operation["of"])
        elif entry.kind == "redo":
            taken.pop()
        else:
            taken.clear()
    return next((entry for entry in own if taken and entry.revision == taken[-1]), None)


def meet(one: Box, other: Box) -> bool:
    """Whether two boxes share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
