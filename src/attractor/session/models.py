"""The models that a session can use: those of its rounds, and those that come with the package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from attractor.description import read_description
from attractor.errors import InputError
from attractor.weights import MODELS


def check_model(model: str, models: Sequence[str]) -> None:
    """Refuse a model that is none of those: a page names no other files.

    Raises:
        InputError: if it is none of them.
    """
    if model not in models:
        raise InputError(f'There is no model "{model[:100]}" here; there are {", ".join(models)}.')


def model_of_round(number: int) -> str:
    """The file of a round's model, in the session's folder."""
    return f"models/round-{number}.safetensors"


def models_of_images(n_classes: int | None = None) -> list[str]:
    """Names of the models that come with the package, without those for volumes.

    Args:
        n_classes: the most that they may have; any number if None.
    """
    known = {name: _axes_and_classes(name) for name in MODELS}
    return [name for name, (axes, n) in known.items() if axes == 2 and (n_classes is None or n <= n_classes)]


@cache
def _axes_and_classes(name: str) -> tuple[int, int]:
    description = read_description(MODELS[name])
    return description.axes, len(description.class_names)
