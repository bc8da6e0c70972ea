"""How a network is computed: what runs it, and in which dtype.

Whatever runs it, normalisations are folded into the convolutions, and channels come last in memory where that is
faster. `float32` gives what training saw, up to rounding. `bfloat16` keeps eight significant bits of each number
between layers; processors with instructions for it are then several times faster. `auto` is bfloat16 on those
processors, however busy they are. `int8` has whole numbers of eight bits in most layers; a model must have been
calibrated for it, and OpenVINO computes it. Maps come out as float32.

Shapes: `b` images, `c` channels, `h` rows, `w` columns; `s` the lengths of an image or volume along its axes.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from threading import Lock, local
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from attractor.errors import InputError, check_choice
from attractor.kernels.devices import computes_bfloat16
from attractor.networks.eight_bits import Ranges, in_eight_bits
from attractor.networks.folding import folded
from attractor.networks.padding import padded
from attractor.wording import install

ENGINES = ("torch", "compiled", "openvino")
DTYPES = ("auto", "float32", "bfloat16")
EIGHT_BITS = "int8"  # the one more that OpenVINO has
MOST_GRAPHS = 4  # image sizes for which a CUDA graph is kept: the first sizes that come twice
LARGEST_GRAPH = 1 << 22  # pixels; a graph holds on to the memory of all its layers, and larger images hardly gain


class LargestOfFour(nn.Module):
    """Max pooling of 2 x 2 pixels: on a CPU several times faster than torch's, which takes windows of any size."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c i j"]:
        """The maps at half the resolution; as in torch, the last row or column is left out if their number is odd."""
        h, w = (n // 2 * 2 for n in x.shape[-2:])
        upper, lower = (torch.maximum(x[..., row:h:2, 0:w:2], x[..., row:h:2, 1:w:2]) for row in (0, 1))
        return torch.maximum(upper, lower)

    @staticmethod
    def computes(module: nn.Module) -> bool:
        """Whether the module is max pooling of exactly this kind."""
        if not isinstance(module, nn.MaxPool2d) or module.ceil_mode or module.return_indices:
            return False
        sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
        return all(size in (n, (n, n)) for size, n in zip(sizes, (2, 2, 0, 1), strict=True))


def channels_last(n_dims: int) -> torch.memory_format:
    """The layout of that name for images, which have four dimensions with batch and channels, or volumes, with five."""
    return torch.channels_last if n_dims == 4 else torch.channels_last_3d


class Engine(nn.Module):
    """A network in the form that torch computes fastest; it gives what the network gives, but cannot be trained."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        """Copy the network; it stays as it is."""
        super().__init__()
        self.dtype = dtype
        self.device = next((values.device.type for values in network.parameters()), "cpu")
        self.n_dims = next((values.ndim for values in network.parameters() if values.ndim > 3), 4)
        self.network = self._laid_out(folded(network))
        if self.device == "cpu":
            for parent in list(self.network.modules()):
                for name, child in parent.named_children():
                    if LargestOfFour.computes(child):
                        setattr(parent, name, LargestOfFour())

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b _ *s"]:
        """The maps of all decoders, at the image's size."""
        with self._own_dtype():
            return self._plain(self.network(self._laid_out(images)))

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The encoder's features, from fine to coarse."""
        features: Any = self.network.pyramid
        with self._own_dtype():
            return [self._plain(x) for x in features(self._laid_out(images))]

    def _own_dtype(self) -> torch.autocast:
        """Keeps to the engine's dtype whatever autocast is set outside, which would pad in float32."""
        return torch.autocast(self.device, enabled=False)

    def _laid_out(self, values: Any) -> Any:
        # which is slow and odd there
        layout = torch.contiguous_format if self.device == "mps" else channels_last(self.n_dims)
        return values.to(dtype=self.dtype, memory_format=layout)

    @staticmethod
    def _plain(values: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        return values.to(torch.float32, memory_format=torch.contiguous_format)


class Compiled(Engine):
    """Compiled by torch for each image size: this takes seconds to a minute once, and is then torch's fastest way."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        """Copy the network; nothing is compiled until images come."""
        super().__init__(network, dtype)
        self._lock = Lock()  # the compiler works for one thread only
        self._maps = torch.compile(super().forward, dynamic=False)
        self._features = torch.compile(super().pyramid, dynamic=False)

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b _ *s"]:
        """The maps of all decoders, at the image's size."""
        with self._lock:
            return self._maps(images)

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The encoder's features, from fine to coarse."""
        with self._lock:
            return self._features(images)


class Graphed(nn.Module):
    """An engine on CUDA that launches all its kernels at once for an image size that it has seen before."""

    def __init__(self, engine: Engine) -> None:
        """Wrap the engine."""
        super().__init__()
        self.engine = engine
        self._lock = Lock()
        self._seen: set[torch.Size] = set()
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b _ *s"]:
        """The maps of all decoders, at the image's size."""
        size = images.shape
        with self._lock:
            if size not in self._graphs:
                is_first = size not in self._seen  # recording takes as long as several images
                self._seen.add(size)
                if is_first or len(self._graphs) == MOST_GRAPHS or images[:, 0].numel() > LARGEST_GRAPH:
                    unrecorded: Tensor = self.engine(images)
                    return unrecorded
                self._graphs[size] = self._recorded(images)
            graph, given, maps = self._graphs[size]
            given.copy_(images)
            graph.replay()
            return maps.clone()  # the next image overwrites them

    def forget(self) -> None:
        """Give back the memory of all graphs."""
        with self._lock:
            self._graphs.clear()
            self._seen.clear()

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The encoder's features, from fine to coarse."""
        return self.engine.pyramid(images)

    def _recorded(self, images: Float[Tensor, "b c *s"]) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        given = images.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels before the recording
            for _ in range(3):
                self.engine(given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another thread may be grouping
            maps = self.engine(given)
        return graph, given, maps


class _OfThread(local):
    """What each thread has for itself: OpenVINO answers one thread at a time on a request."""

    def __init__(self) -> None:
        self.requests: dict[int, Any] = {}  # by the number of images at a time that they were compiled for


class OpenVino(nn.Module):
    """A network computed by OpenVINO, on the CPU."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, ranges: Ranges | None = None, cores: int = 0) -> None:
        """Convert the network: a second or two.

        Args:
            network: stays as it is.
            dtype: of what comes between layers; with int8, what is not rounded stays float32.
            ranges: that int8 needs.
            cores: for all images that are computed at once, by default as many as torch has for one.

        Raises:
            InputError: if the ranges, which int8 needs, are those of another network.
        """
        super().__init__()
        import openvino

        plain: Any = folded(network)
        if dtype == torch.int8:
            in_eight_bits(plain, ranges or {})
            dtype = torch.float32  # of the rest, so that results do not depend on the processor
        self.strides: Sequence[int] = plain.strides
        example = torch.zeros(1, _channels_in(plain), *(2 * (self.strides[-1],)))
        whole = plain if plain.decoders else Pyramid(plain)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that only the example's path through the code is converted
            traced = torch.jit.trace(whole, example, check_trace=False)
            model = openvino.convert_model(traced, example_input=example)
        model.reshape([-1, example.shape[1], -1, -1])
        self._model = model
        self._precision = {torch.float32: "f32", torch.bfloat16: "bf16"}[dtype]
        self._cores = cores or torch.get_num_threads()
        self._lock = Lock()  # while something is compiled
        self.at_once: dict[int, Any] = {}  # compiled for that many images at a time
        self._own = _OfThread()

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b _ *s"]:
        """The maps of all decoders, at the image's size."""
        h, w = images.shape[-2:]
        (maps,) = self.pyramid(images)
        return maps[..., :h, :w].contiguous()

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The network's features, from fine to coarse; if it has decoders, its maps, not cropped."""
        answers = self._request().infer(padded(images, self.strides[-1]).numpy(), share_inputs=True)
        return [torch.from_numpy(answers[n]) for n in range(len(answers))]

    def _request(self) -> Any:
        """What answers the calling thread, with about as many cores as torch has there."""
        at_once = 1 << (max(1, self._cores // torch.get_num_threads()).bit_length() - 1)  # few numbers: powers of two
        if at_once not in self._own.requests:
            self._own.requests[at_once] = self._compiled(at_once).create_infer_request()
        return self._own.requests[at_once]

    def _compiled(self, at_once: int) -> Any:
        """The model as OpenVINO runs it, for several images at a time with a share of the cores each."""
        import openvino

        with self._lock:
            if at_once not in self.at_once:
                settings = {
                    "INFERENCE_PRECISION_HINT": self._precision,
                    "INFERENCE_NUM_THREADS": self._cores,
                    "NUM_STREAMS": at_once,
                    "ENABLE_CPU_PINNING": False,  # others, of this process or another, may be pinned to the same cores
                }
                self.at_once[at_once] = openvino.Core().compile_model(self._model, "CPU", settings)
            return self.at_once[at_once]


class Pyramid(nn.Module):
    """The encoder of a network as a module of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Float[Tensor, "b c *s"]) -> tuple[Float[Tensor, "b _ *_"], ...]:
        """The features, from fine to coarse."""
        features: Any = self.network.pyramid
        return tuple(features(images))


def _channels_in(network: nn.Module) -> int:
    """Channels of the images that a network is shown, including those of positions."""
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    return first.in_channels


def engine_of(
    network: nn.Module,
    *,
    name: str,
    dtype: str,
    device: torch.device,
    record: bool = True,
    ranges: Ranges | None = None,
    cores: int = 0,
) -> nn.Module:
    """The network, already on the device, wrapped in the engine of that name; see `check_engine`.

    With `record`, CUDA launches all kernels as one for an image size that it has seen before. Ranges and cores are for
    OpenVINO.
    """
    kind = dtype_of(dtype, device)
    if name == "openvino":
        return OpenVino(network, kind, ranges, cores)
    engine = (Compiled if name == "compiled" else Engine)(network, kind)
    return Graphed(engine) if device.type == "cuda" and record else engine


def check_engine(name: str, dtype: str, device: torch.device) -> None:
    """Refuse an engine that is not installed, or does not run on this device or in this dtype.

    Raises:
        InputError: in these cases, or if there is no engine or dtype of that name.
    """
    check_choice("engine", name, ENGINES)
    check_choice("dtype", dtype, (*DTYPES, EIGHT_BITS))
    if dtype == EIGHT_BITS and name != "openvino":
        raise InputError(f"The dtype int8 is for the engine openvino, not for {name}; add --engine openvino.")
    if name == "openvino" and device.type != "cpu":
        raise InputError(f"The engine openvino runs on the CPU, not on {device.type}; add --device cpu.")
    if name == "openvino" and importlib.util.find_spec("openvino") is None:
        raise InputError(f"The engine openvino is not installed. {install('openvino')}")


def dtype_of(dtype: str, device: torch.device) -> torch.dtype:
    """The type of that name; "auto" is bfloat16 on a device that has instructions for it."""
    if dtype == "auto":
        dtype = "bfloat16" if computes_bfloat16(device) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, EIGHT_BITS: torch.int8}[dtype]
