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


@cache
def n_classes(name: str) -> int:
    """Number of classes of a model that comes with the package."""
    return len(read_description(MODELS[name]).class_names)
