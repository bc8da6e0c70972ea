"""Objects through time: linking label images of frame after frame, and what can be read and written of it.

from attractor.tracking import link

linked = link(frames)  # label images, one after another
for frame in linked:  # the same with one number for each object through the film
    ...
linked.tracks  # when each begins and ends, and whose child it is
"""

from __future__ import annotations

from attractor.tracking.linking import Linked, Pointing, link
from attractor.tracks import Track

__all__ = ["Linked", "Pointing", "Track", "link"]
