"""The models that a session can use: those of its rounds, those of a folder, and those that come with the package."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from attractor.description import read_description
from attractor.errors import InputError
from attractor.weights import MODELS

logger = logging.getLogger(__name__)


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
    return [name for name in MODELS if suits(name, n_classes)]


def suits(model: str, n_classes: int | None = None) -> bool:
    """Whether a model, by its name or file, is for images, and has no more than so many classes."""
    axes, n = _axes_and_classes(model)
    return axes == 2 and (n_classes is None or n <= n_classes)


def models_of_folder(folder: str | Path) -> list[str]:
    """The files of models in a folder, by name; other files are left out.

    Raises:
        InputError: if there is no such folder, or no model for images in it.
    """
    if not (folder := Path(folder).resolve()).is_dir():
        raise InputError(f"{folder}: there is no such folder; give one that holds models, as .safetensors files.")
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        try:
            found += [str(file)] if suits(str(file)) else []
        except InputError as error:
            logger.warning("%s It is left out.", error)
    if not found:
        raise InputError(f"{folder}: holds no model for images; training writes them as model.safetensors.")
    return found


@cache
def _axes_and_classes(model: str) -> tuple[int, int]:
    description = read_description(MODELS.get(model, Path(model)))
    return description.axes, len(description.class_names)
