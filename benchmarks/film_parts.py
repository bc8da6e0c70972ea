"""Some frames of a film with their truth, as a film of its own: to learn from the first, and be scored on the others.

    python -m benchmarks.film_parts FILM :20 OUT

FILM and OUT hold films in the form of the Cell Tracking Challenge. `:20` are the first twenty frames, `20:` the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attractor.datasets import Subset, open_dataset
from attractor.datasets.converting import convert


def main() -> None:
    """Write the frames that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("film", type=Path)
    parser.add_argument("frames", help="first and one after the last, as in 5:20; either may be left out")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    frames = open_dataset(given.film)
    first, _, last = given.frames.partition(":")
    chosen = range(len(frames))[int(first or 0) : int(last or len(frames))]
    convert(Subset(frames, list(chosen)), given.out, "ctc")


if __name__ == "__main__":
    main()
