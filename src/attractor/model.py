"""A model is a method on a network, made from names and kept in one self-describing file.

The file is safetensors: weights, and a JSON header with everything that is needed to use them. Loading runs no
code from the file.

Shapes: `c` channels, `h` rows, `w` columns.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import nn

from attractor.errors import InputError
from attractor.images import atomic
from attractor.methods import METHODS
from attractor.networks import NETWORKS
from attractor.normalisation import Normalisation
from attractor.weights import MODELS

FORMAT = 1  # of the model file; a reader refuses a newer one


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model file says of itself."""

    method: str
    network: str
    channels: int
    class_names: tuple[str, ...]
    normalisation: Normalisation = field(default_factory=Normalisation)
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the method
    network_options: dict[str, Any] = field(default_factory=dict)
    object_size: float | None = None  # typical diameter in pixels of the images it was trained on
    recipe: dict[str, Any] = field(default_factory=dict)  # that it was trained by
    scores: dict[str, Any] = field(default_factory=dict)
    about: str = ""  # one sentence: on what it was trained, and the licence


class Model(nn.Module):
    """A method with what is needed to use it on an image."""

    def __init__(self, description: Description) -> None:
        """Make the method and its network from their names, with new weights.

        Raises:
            InputError: if a name or an option is not known.
        """
        super().__init__()
        self.description = description
        make_method = _named(METHODS, description.method, "method")
        make_network = _named(NETWORKS, description.network, "network")
        _check_options(make_method, description.options, f"method {description.method}")
        _check_options(make_network, description.network_options, f"network {description.network}")

        def network_for(channels_out: Sequence[int], extra_channels: int = 0) -> nn.Module:
            return make_network(description.channels + extra_channels, channels_out, **description.network_options)

        self.method = make_method(
            network_for,
            n_classes=len(description.class_names),
            **description.options,
        )

    def forward(self, images: Float[torch.Tensor, "b c h w"]) -> Any:
        """The method's raw maps of normalised images."""
        return self.method(images)

    def described(self, **changes: Any) -> Description:
        """The description with these fields changed and the method's thresholds as they stand."""
        options = self.description.options | self.method.thresholds
        return dataclasses.replace(self.description, options=options, **changes)

    def save(self, path: str | Path, *, half: bool = False, **changes: Any) -> None:
        """Write the model file; it appears under its name only when complete.

        Args:
            path: the file, by custom `.safetensors`.
            half: keep the weights in half precision, for a file of half the size; what it finds may differ by a pixel.
            changes: fields of the description to change.
        """
        path = Path(path)
        header = {"format": FORMAT} | dataclasses.asdict(self.described(**changes))
        weights = {name: value.detach().cpu().contiguous() for name, value in self.method.state_dict().items()}
        if half:
            # layers' weights alone: statistics and biases are few, and may be too large for it
            weights = {name: value.half() if value.ndim > 1 else value for name, value in weights.items()}
        data = safetensors.torch.save(weights, {"attractor": json.dumps(header)})
        with atomic(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, name_or_path: str | Path) -> Model:
        """The model of a file, or one of those that come with the package, ready to predict.

        Raises:
            InputError: if there is no such model, or the file is not one, is cut short, or is of a newer format.
        """
        path = find_model(name_or_path)
        description = read_description(path)
        model = cls(description)
        try:
            weights = safetensors.torch.load_file(path)
            model.method.load_state_dict(weights)
        except (safetensors.SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: the weights do not fit the model that the file describes ({reason}).") from error
        return model.eval()


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model given by name or path."""
    path = Path(name_or_path)
    if path.is_dir() and (path / "model.safetensors").exists():
        return path / "model.safetensors"
    if path.is_file():
        return path
    if str(name_or_path) in MODELS:
        return MODELS[str(name_or_path)]
    raise InputError(
        f"{name_or_path}: there is no such model. Give the file of a model (model.safetensors in the folder of a "
        f"training), or the name of one that comes with attractor: {', '.join(MODELS) or 'none yet'}."
    )


def read_description(path: str | Path) -> Description:
    """What a model file says of itself, without loading its weights."""
    try:
        with safetensors.safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {}).get("attractor", "null"))
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: this is not a whole model file ({error}). It may have been cut short while copying: copy it "
            "again. Models are .safetensors files that `attractor train` writes."
        ) from error
    if not isinstance(header, dict) or "format" not in header:
        raise InputError(
            f"{path}: this safetensors file was not written by attractor; `attractor train` writes models."
        )
    version = header.pop("format")
    if version != FORMAT:
        raise InputError(
            f"{path}: the model file has format {version}, and this attractor reads format {FORMAT}. "
            "Update attractor: run git pull and pip install . in its clone."
        )
    try:
        header["normalisation"] = Normalisation(**header["normalisation"])
        header["class_names"] = tuple(header["class_names"])
        return Description(**header)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: the model's description is not one that this attractor writes ({error}).") from error


def _check_options(make: Any, options: dict[str, Any], what: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    known = [p.name for p in inspect.signature(make).parameters.values() if p.kind == p.KEYWORD_ONLY]
    if unknown := [name for name in options if name not in known or name == "n_classes"]:
        known.remove("n_classes") if "n_classes" in known else None
        raise InputError(f"The {what} has no option {', '.join(unknown)}; its options are {', '.join(known)}.")
    hints = get_type_hints(make.__init__)
    for name, value in options.items():
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].lower()
            raise InputError(f"The option {name} of the {what} is {value!r}: {reason}.") from error


def _named(known: dict[str, Any], name: str, kind: str) -> Any:
    if name not in known:
        raise InputError(f'There is no {kind} "{name}"; there are: {", ".join(known)}.')
    return known[name]
