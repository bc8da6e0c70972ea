"""Several images at once: on a CPU, each on a core of its own; otherwise as stages that share one device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

import torch

ROOM = 1 << 23  # pixels of all images worked on at once
STAGES = 3  # images worked on at once if they share a device: one is read, one computed, one written

S = TypeVar("S")
T = TypeVar("T")


class Crew:
    """Threads that work on several images at once; one core for each image is faster than all cores for one image.

    Args:
        side_by_side: whether each image is computed by a thread of its own.
        most_pixels: that are computed at once; a larger image is worked on alone.
        n_images: how many there are, if that is known.
    """

    def __init__(self, *, side_by_side: bool, most_pixels: int, n_images: int | None = None) -> None:
        self.n_cores = torch.get_num_threads()
        self.side_by_side = side_by_side
        most_workers = self.n_cores if side_by_side else STAGES
        self.n_workers = most_workers if n_images is None else max(1, min(n_images, most_workers))
        self.room = Room(min(ROOM, most_pixels))

    def each(self, function: Callable[[S], T], items: Iterable[S]) -> Iterator[Future[T]]:
        """The function's result for each item, in order; items are taken shortly before they are needed."""
        try:
            with ThreadPoolExecutor(self.n_workers) as pool:
                yield from _ahead(pool, function, items, self.n_workers)
        finally:
            torch.set_num_threads(self.n_cores)

    def each_of_groups(self, function: Callable[[S], Sequence[Future[T]]], groups: Iterable[S]) -> Iterator[Future[T]]:
        """The function's results for each group of items, in order."""
        for results in self.each(function, groups):
            yield from results.result()

    @contextmanager
    def place(self, n_pixels: int) -> Iterator[None]:
        """Room for an image of that many pixels, and a share of the cores for the thread that asks."""
        with self.room.taken(n_pixels):
            at_once = min(self.n_workers, max(1, self.room.most // max(1, n_pixels))) if self.side_by_side else 1
            torch.set_num_threads(max(1, self.n_cores // at_once))
            yield


class Room:
    """A limit on the pixels worked on at once; an image with more than that is worked on alone."""

    def __init__(self, most: int) -> None:
        self.most, self.used, self.changed = most, 0, Condition()

    @contextmanager
    def taken(self, n: int) -> Iterator[None]:
        """Hold room for n pixels, once there is that much."""
        with self.changed:
            self.changed.wait_for(lambda: not self.used or self.used + n <= self.most)
            self.used += n
        try:
            yield
        finally:
            with self.changed:
                self.used -= n
                self.changed.notify_all()


def _ahead(pool: Executor, function: Callable[[S], T], items: Iterable[S], n: int) -> Iterator[Future[T]]:
    """The function's result for each item, from other threads; n of them begin before the first is asked for."""
    begun: deque[Future[T]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > n:
            yield begun.popleft()
    yield from begun
