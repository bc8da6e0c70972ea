"""A model: a method on a network, made from names and kept in one self-describing file.

Shapes: `b` images, `c` channels, `s` their lengths along each axis.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pydantic
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from attractor.description import MOST_CHANNELS, Description, encoded, find_model, read_header
from attractor.errors import InputError, check_number
from attractor.images import atomic
from attractor.methods import METHODS, Method
from attractor.methods.contract import lacking
from attractor.methods.spatial_embeddings import SpatialEmbeddings
from attractor.networks import NETWORKS, Network
from attractor.networks.contract import JoinsFrames, TakesVolumes
from attractor.wording import counted, printable

T = TypeVar("T")
NO_OPTIONS = ("n_classes", "spacing", "joint_channels")  # arguments that follow from the rest of the description


class Model(nn.Module):
    """A method with what is needed to use it on an image."""

    method: Method[Any]

    def __init__(self, description: Description) -> None:
        """Make the method and its network from their names, with new weights.

        Raises:
            InputError: if a name or an option is not known, or an option cannot have the value given.
        """
        super().__init__()
        check_number("channels", description.channels, 1, MOST_CHANNELS)
        if not description.class_names:
            raise InputError("The model has no class; it needs at least one, as in class_names = ('object',).")
        self.description = description
        make_method = _named(METHODS, description.method, "method")
        make_network = _named(NETWORKS, description.network, "network")
        options = _checked(make_method, description.options, f"method {description.method}")
        network_options = _checked(make_network, description.network_options, f"network {description.network}")

        spaced = _spaced(description, make_method, make_network)

        def network_for(channels_out: Sequence[int], extra_channels: int = 0, joint_channels: int = 0) -> Network:
            joint = _joint(joint_channels, description.network, make_network)
            n_channels = description.channels + extra_channels
            return make_network(n_channels, channels_out, **joint, **spaced, **network_options)

        method = make_method(network_for, n_classes=len(description.class_names), **spaced, **options)
        if missing := lacking(method):
            raise InputError(
                f"The method {description.method} lacks {', '.join(missing)}, which every method has: see "
                "attractor.methods.contract."
            )
        self.method = method

    def forward(self, images: Float[Tensor, "b c *s"]) -> object:
        """The method's raw maps of normalised images."""
        return self.method(images)

    def described(self, **changes: Any) -> Description:
        """The description with the method's present thresholds, and with these fields changed."""
        options = self.description.options | self.method.thresholds
        return dataclasses.replace(self.description, **({"options": options} | changes))

    def save(self, path: str | Path, *, half: bool = False, **changes: Any) -> None:
        """Write the model file; it appears under its name only when complete.

        Args:
            path: the file, whose name usually ends in `.safetensors`.
            half: keep the weights in half precision; the file has half the size, and results may differ by a pixel.
            changes: fields of the description to change.
        """
        weights = {name: value.detach().cpu().contiguous() for name, value in self.method.state_dict().items()}
        if half:
            # only the weights of layers: statistics and biases are few, and may be too large for half precision
            weights = {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}
        data = safetensors.torch.save(weights, {"attractor": encoded(self.described(**changes))})
        with atomic(Path(path)) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Model:
        """The model of a file, or one of those that come with the package, ready to predict.

        Raises:
            InputError: if there is no such model, or the file is not one, is cut short, is of a newer format, or holds
                numbers that are infinite or none.
        """
        path = find_model(name_or_path)
        version, description = read_header(path)
        try:
            weights = safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise InputError(f"{path}: the weights cannot be read ({error}); copy the file again.") from error
        try:
            with torch.device("meta"):  # before any memory is taken for it
                expected = cls(description).method.state_dict()
            _check_weights(weights, expected)
            model = cls(description)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        model.method.load_state_dict(weights)
        if version == 1 and isinstance(model.method, SpatialEmbeddings):
            model.method.put_rows_first()
        return model.eval()


def _check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not belong to the model, or that cannot be computed with."""
    fits = {name: value.shape for name, value in found.items()} == {n: value.shape for n, value in expected.items()}
    if not fits:
        wrong = next(
            name
            for name in sorted(found.keys() | expected.keys())
            if name not in found or name not in expected or found[name].shape != expected[name].shape
        )
        raise InputError(f"the weights do not fit the model that the file describes: {wrong} is the first not to fit.")
    for name, value in found.items():
        if value.is_complex() or not np.isfinite(value.float().numpy()).all():  # in a seventh of torch's time
            raise InputError(f"the weights {name} are infinite or not numbers; train the model anew, or copy it again.")


def _spaced(description: Description, *made: type) -> dict[str, tuple[float, ...]]:
    """What a method and a network for volumes are made with, beside their options; nothing for images.

    Raises:
        InputError: if one of them takes images only, or the spacing does not suit the number of axes.
    """
    if description.axes == 2:
        if description.spacing is not None:
            raise InputError("The model has a spacing, but two axes; a spacing is for volumes, with axes = 3.")
        return {}
    if description.axes != 3 or len(description.steps) != 3:
        raise InputError(
            f"The model has {description.axes} axes and {counted(len(description.steps), 'step')}; images have 2 axes, "
            "and volumes 3, with a step along each."
        )
    names = description.method, description.network
    lists: tuple[Mapping[str, object], ...] = METHODS, NETWORKS
    for make, name, known in zip(made, names, lists, strict=True):
        if not isinstance(make, TakesVolumes):
            able = [other for other, kind in known.items() if isinstance(kind, TakesVolumes)]
            raise InputError(f"{name} takes images, and no volumes; what takes volumes is {', '.join(able)}.")
    for step in description.steps:
        check_number("spacing", step, 1e-6, 1e6)
    return {"spacing": description.steps}


def _joint(channels: int, name: str, make: type) -> dict[str, int]:
    """What a network is made with so that it compares an image with the one before; nothing if it need not.

    Raises:
        InputError: if it cannot.
    """
    if channels and not isinstance(make, JoinsFrames):
        able = [other for other, kind in NETWORKS.items() if isinstance(kind, JoinsFrames)]
        raise InputError(f"{name} cannot compare a frame with the one before; what can is {', '.join(able)}.")
    return {"joint_channels": channels} if channels else {}


def _checked(make: type, options: Mapping[str, object], what: str) -> dict[str, object]:
    """Options that a method or network takes, each of its type."""
    parameters = inspect.signature(make).parameters.values()
    known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in NO_OPTIONS]
    if unknown := [name for name in options if name not in known]:
        raise InputError(
            f"The {what} has no option {', '.join(map(printable, unknown))}; its options are {', '.join(known)}."
        )
    hints = get_type_hints(inspect.getattr_static(make, "__init__"))
    checked = {}
    for name, value in options.items():
        try:
            checked[name] = pydantic.TypeAdapter(hints[name]).validate_python(value, strict=True)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise InputError(f"The option {name} of the {what} is {value!r:.60}: {reason}.") from error
    return checked


def _named(known: Mapping[str, T], name: str, kind: str) -> T:
    if name not in known:
        raise InputError(f'There is no {kind} "{printable(name)}"; there are: {", ".join(known)}.')
    return known[name]
