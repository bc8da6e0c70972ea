"""Who may use the device: one at a time, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import TypeAlias

Place: TypeAlias = "Future[None]"  # is done as soon as it is the first


class Line:
    """A line of those who wait for the device, the first of whom uses it."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._places: deque[Place] = deque()
        self._mutex = threading.Lock()

    def join(self) -> Place:
        """A place at the end, which has to be left in any case."""
        place: Place = Future()
        with self._mutex:
            self._places.append(place)
            self._call_first()
        return place

    def leave(self, place: Place) -> None:
        """Give up a place, whether it was the first or not."""
        with self._mutex:
            self._places.remove(place)
            self._call_first()

    def _call_first(self) -> None:
        if self._places and not self._places[0].done():
            with suppress(InvalidStateError):  # it was cancelled just now, and will leave
                self._places[0].set_result(None)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, which lasts for the block."""
        place = self.join()
        try:
            place.result()
            yield
        finally:
            self.leave(place)
