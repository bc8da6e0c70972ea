"""Models for programs without attractor, or without torch: ONNX, OpenVINO and torch.export.

The graph takes images or volumes as they are in the file, as float32, and gives the method's raw maps by name; the
batch and all sides are free. Normalisation by percentiles and padding to the network's stride are inside. What is not
arithmetic on one array stays outside: turning colour into grey or grey into colour, rescaling to the object size that
the model was trained on, averaging over views, and grouping, whose numbers are all in the file as JSON. An image with
one value everywhere has no objects, whatever the maps say.

Shapes: `b` images, `c` channels, `s` their lengths along each axis, (row, column) or (plane, row, column).
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import inspect
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as shapes

from attractor.errors import InputError, check_choice
from attractor.images import atomic, check_folder_of
from attractor.methods.contract import LearnsNumbers, with_network
from attractor.model import NO_OPTIONS, Model
from attractor.networks import Network
from attractor.networks.contract import strides_along
from attractor.networks.normalised import Normalised, number
from attractor.wording import install

KEY = "attractor"  # under which a file holds the model's description
INPUT = "images"
SIDES = {2: ("batch", "height", "width"), 3: ("batch", "depth", "height", "width")}  # that are free, by number of axes


# -------------------------------------------------------------------- the graph


class Exportable(nn.Module):
    """A model from unprocessed images to raw maps, using only operations that other programs have."""

    def __init__(self, model: Model) -> None:
        """Copy the method; the model stays as it is."""
        super().__init__()
        self.normalisation = Normalised(model.description.normalisation)
        method = copy.deepcopy(model).cpu().eval().requires_grad_(False).method
        self.method = with_network(method, Padded(method.network))

    def forward(self, images: Float32[Tensor, "b c *s"]) -> dict[str, Tensor]:
        """The raw maps by name, without those that have no channel."""
        maps = vars(self.method(self.normalisation(images)))
        return {name: values for name, values in maps.items() if values.shape[1] != 0}


class Padded(nn.Module):
    """A network whose images are padded as by `attractor.networks.padding`, though their sides are not yet known.

    The network inside then finds nothing left to pad.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float32[Tensor, "b c *s"]) -> Float32[Tensor, "b _ *s"]:
        """The network's maps at the image's size."""
        maps = self.network(self._padded(images))
        for axis, n in enumerate(images.shape[2:], 2):
            maps = maps.index_select(axis, torch.arange(n, device=images.device))
        return maps

    def pyramid(self, images: Float32[Tensor, "b c *s"]) -> list[Float32[Tensor, "b _ *_"]]:
        """The network's features of the padded image."""
        return self.network.pyramid(self._padded(images))

    def _padded(self, images: Float32[Tensor, "b c *s"]) -> Float32[Tensor, "b c *t"]:
        lengths = images.shape[2:]
        strides = strides_along(self.network, len(lengths))[-1]
        wanted = [(n + stride - 1) // stride * stride for n, stride in zip(lengths, strides, strict=True)]
        reflects = torch.ones((), dtype=torch.bool, device=images.device)
        for n, to in zip(lengths, wanted, strict=True):
            reflects = reflects & (number(to, images) < 2 * number(n, images))
        for axis, (n, to) in enumerate(zip(lengths, wanted, strict=True), 2):
            place = torch.arange(to, device=images.device)
            beyond = torch.where(reflects, 2 * (n - 1) - place, n - 1)
            images = images.index_select(axis, torch.where(place < n, place, beyond))
        return images


def program_of(model: Model) -> ExportedProgram:
    """The model's graph, in which the batch and all sides can be any number from 1."""
    sides = (19, 67, 53)[-model.description.axes :]  # no length twice, and none a multiple of a stride
    images = torch.zeros(2, model.description.channels, *sides)
    batch, *others = SIDES[model.description.axes]
    free = {0: Dim(batch, min=1)} | {axis: Dim(name, min=1) for axis, name in enumerate(others, 2)}
    # Without this, torch treats lengths of 1 as a special case, and then refuses features of one row. It has no
    # public name for it, and makes `patch` when it is imported, where mypy does not see it.
    with torch.no_grad(), _quiet(), shapes.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        program = torch.export.export(Exportable(model), (images,), dynamic_shapes=(free,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def described(model: Model) -> dict[str, object]:
    """Everything there is to know about an exported model, as JSON values.

    `options` are all arguments of the method, including every number that grouping takes; `thresholds` are the ones
    among them that validation has tuned.
    """
    description, method = model.described(), model.method
    parameters = inspect.signature(type(method)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in NO_OPTIONS}
    learned = method.learned_numbers() if isinstance(method, LearnsNumbers) else {}
    return {
        "attractor": metadata.version("attractor"),
        "method": description.method,
        "channels": description.channels,
        "class_names": list(description.class_names),
        "object_size": description.object_size,
        "scale": description.scale,
        **({"axes": description.axes, "spacing": description.spacing} if description.axes == 3 else {}),
        "normalisation": dataclasses.asdict(description.normalisation),
        "thresholds": method.thresholds,
        "options": defaults | description.options | learned,
        "about": description.about,
    }


# -------------------------------------------------------------------- the files


def write_torch(program: ExportedProgram, about: str, path: Path) -> None:
    """A .pt2 file for `torch.export.load`, with the description in its extra file `attractor.json`."""
    file = io.BytesIO()  # given a path, it would keep the temporary name in the file
    with _quiet():
        torch.export.save(program, file, extra_files={f"{KEY}.json": about})
    with atomic(path) as temporary:
        temporary.write_bytes(file.getvalue())


def write_onnx(program: ExportedProgram, about: str, path: Path) -> None:
    """An ONNX file with the description in its metadata."""
    with atomic(path) as temporary:
        temporary.write_bytes(_as_onnx(program, about))


def write_openvino(program: ExportedProgram, about: str, path: Path) -> None:
    """An .xml file with the description in its runtime information, and the weights in a .bin file beside it.

    It goes by way of ONNX: OpenVINO's own converter from torch cannot handle arithmetic on sizes.
    """
    import openvino

    model = openvino.Core().read_model(_as_onnx(program, about))
    model.set_rt_info(about, KEY)
    with atomic(path) as structure, atomic(path.with_suffix(".bin")) as weights:
        openvino.serialize(model, structure, weights)


def _as_onnx(program: ExportedProgram, about: str) -> bytes:
    with _quiet():
        exported: Any = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=[INPUT], output_names=_names_of_maps(program)
        )
    graph = exported.model.graph
    for part in (exported.model, graph, *graph.inputs, *graph.outputs, *graph):
        part.metadata_props.clear()  # paths of this machine
    for values in (*graph.inputs, *graph.outputs):
        _name_sides(values.shape)
    exported.model.metadata_props[KEY] = about
    content: bytes = exported.model_proto.SerializeToString()
    return content


def _names_of_maps(program: ExportedProgram) -> list[str]:
    """Names of the outputs, in their order."""
    out_spec: Any = program.call_spec.out_spec
    return list(out_spec.context)


def _name_sides(shape: Any) -> None:
    """Call the free sides of an input or output by what they are."""
    batch, *others = SIDES[3 if len(shape) == 5 else 2]
    names = (batch,) if len(shape) < 4 else (batch, None, *others)
    for axis, name in enumerate(names):
        if name is not None:
            shape[axis] = name


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch's exporter says about itself: nobody who exports a model can do anything about it."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# -------------------------------------------------------------------- the formats


@dataclass(frozen=True)
class Export:
    """How a model is written, and what must be installed for it."""

    suffix: str
    files: str  # the files that are written, in words
    write: Callable[[ExportedProgram, str, Path], None]
    packages: tuple[str, ...] = ()
    extra: str = ""  # of attractor, which installs the packages


EXPORTS: dict[str, Export] = {
    "onnx": Export(".onnx", "an .onnx", write_onnx, ("onnx", "onnxscript"), "export"),
    "openvino": Export(".xml", "an .xml and a .bin", write_openvino, ("openvino", "onnx", "onnxscript"), "openvino"),
    "torch-export": Export(".pt2", "a .pt2", write_torch),
}


def export(model: Model, path: str | Path, *, target: str = "onnx") -> list[str]:
    """Write a model in another format, and return the names of its maps.

    Args:
        model: made or loaded.
        path: the file, with the suffix of the format.
        target: one of `EXPORTS`.

    Raises:
        InputError: as `check_export` does, or if the file cannot be written.
    """
    path = Path(path)
    check_export(path, target=target)
    program = program_of(model)
    EXPORTS[target].write(program, json.dumps(described(model)), path)
    return _names_of_maps(program)


def exports_in_words() -> str:
    """The names of the formats, each with the files that it has."""
    return ", ".join(f"{name} ({one.files})" for name, one in EXPORTS.items())


def suffix_of(target: str) -> str:
    """What the files of a format end in.

    Raises:
        InputError: if there is no such format.
    """
    check_choice("format", target, tuple(EXPORTS))
    return EXPORTS[target].suffix


def check_export(path: Path, *, target: str) -> None:
    """Raise what `export` would raise before it computes.

    Raises:
        InputError: if there is no such format, a package it needs is not installed, or the file cannot be written.
    """
    suffix, wanted = suffix_of(target), EXPORTS[target]
    if missing := [name for name in wanted.packages if importlib.util.find_spec(name) is None]:
        raise InputError(f"Writing {target} needs {' and '.join(missing)}, not installed here. {install(wanted.extra)}")
    if path.suffix != suffix:
        raise InputError(f"{path}: files of the format {target} end in {suffix}; name it {path.stem}{suffix}.")
    check_folder_of(path)
