"""Which images go through the network together: those of one size, which is what fills an accelerator.

Nothing is padded to another image's size: a network sees hundreds of pixels far, so padding would change what it says
at the rim of an image, and labels would depend on an image's neighbours.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import NamedTuple, TypeVar

from numpy.typing import ArrayLike

MOST_IMAGES = 16  # at once; more of them hardly make a GPU faster
MOST_PIXELS = 1 << 22  # of all of them together: sixteen images of 512 x 512

T = TypeVar("T")


class Given(NamedTuple):
    """An image to find the objects of."""

    name: str  # for messages
    image: ArrayLike
    spacing: Sequence[float] | None = None  # micrometres along each axis of a volume


def n_pixels_of(given: Given) -> int:
    """How many pixels an image has, channels counted as such; 1 if it has no shape."""
    return math.prod(getattr(given.image, "shape", ()))


def batches(sizes: Sequence[tuple[int, ...] | None], most_pixels: int = MOST_PIXELS) -> list[list[int]]:
    """The places of the images in each batch, ordered by the first.

    Args:
        sizes: of all images: height and width; None for an image that has to go alone.
        most_pixels: of a batch; a larger image goes alone.
    """
    alike, found = defaultdict[tuple[int, ...], list[int]](list), list[list[int]]()
    for place, size in enumerate(sizes):
        if size is None:
            found.append([place])
        else:
            alike[size].append(place)
    for size, places in alike.items():
        found += in_groups(places, max(1, min(MOST_IMAGES, most_pixels // math.prod(size))))
    return sorted(found)


def in_groups(items: Iterable[T], n: int, *, size: Callable[[T], int] = lambda item: 0) -> Iterator[list[T]]:
    """At most so many items after one another, taken when they are asked for.

    Args:
        items: any.
        n: the most in a group.
        size: pixels of an item; a group ends with the item with which it has `MOST_PIXELS`.
    """
    left = iter(items)
    while group := list(islice(left, 1)):
        n_pixels = size(group[0])
        while len(group) < n and n_pixels < MOST_PIXELS:
            if not (following := list(islice(left, 1))):
                break
            group += following
            n_pixels += size(following[0])
        yield group


def settled(function: Callable[[], T]) -> Future[T]:
    """What the function gives or raises, for somebody who asks later."""
    future = Future[T]()
    try:
        future.set_result(function())
    except Exception as error:  # nothing is hidden: whoever asks for the result gets it
        future.set_exception(error)
    return future


def known(value: T) -> Future[T]:
    """A value that nobody has to wait for."""
    future = Future[T]()
    future.set_result(value)
    return future
