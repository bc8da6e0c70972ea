"""Proposal-free instance segmentation: every object in an image, each by itself.

    import attractor

    segmenter = attractor.load("nuclei")
    found = segmenter.segment(image)  # an array of shape (h, w) or (h, w, c)
    found.labels  # int32, 0 is background, 1 to k are objects
    print(attractor.evaluate("nuclei", "mydata"))  # its scores on annotated images

Importing this is cheap: code that computes is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from attractor.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attractor import metrics
    from attractor.datasets import open_dataset as read
    from attractor.evaluation import evaluate_model as evaluate
    from attractor.instances import Instances
    from attractor.prediction.image import Segmenter
    from attractor.runs import train

__all__ = ["InputError", "Instances", "Segmenter", "evaluate", "load", "metrics", "read", "train"]
__version__ = "0.1.0"

LATER = {  # public name: module, and its name there
    "Instances": ("attractor.instances", "Instances"),
    "Segmenter": ("attractor.prediction.image", "Segmenter"),
    "evaluate": ("attractor.evaluation", "evaluate_model"),
    "metrics": ("attractor.metrics", ""),
    "read": ("attractor.datasets", "open_dataset"),
    "train": ("attractor.runs", "train"),
}


def load(
    name_or_path: str | Path = "nuclei",
    *,
    device: str = "auto",
    thresholds: dict[str, float] | None = None,
    engine: str = "torch",
    dtype: str = "auto",
    whole_masks: bool = False,
    tta_scales: Sequence[float] = (),
) -> Segmenter:
    """A model that is ready to segment images.

    Args:
        name_or_path: a model that comes with the package, a model file, or the folder of a training.
        device: "cpu", "cuda", "mps", or "auto" for the first of CUDA, MPS and CPU that is there.
        thresholds: to use instead of those tuned for the model's own kind of image, as {"seed_threshold": 0.6}.
        engine: what runs the network: "torch"; "compiled", by torch for each image size, which takes seconds to a
            minute at first; or "openvino", on the CPU.
        dtype: the type of the numbers in the network: "float32", as for all published scores, "bfloat16", or "auto",
            which is bfloat16 on devices that have instructions for it; or "int8", with engine="openvino" and a
            calibrated model.
        whole_masks: whether objects that overlap keep whole masks, as `Instances.masks`, beside the label image, which
            gives each pixel to one of them. Only for methods whose objects can overlap, such as spatial embeddings.
        tta_scales: magnifications, such as (1.1, 1.25), at which test-time augmentation looks at each image besides its
            own size. Only for spatial embeddings.

    Raises:
        InputError: if there is no such model, device, engine, dtype or threshold, the file is not a model, its method
            cannot give whole masks or look at several scales, or int8 is asked of a model that was not calibrated.

    Example:
        >>> import numpy as np
        >>> from skimage.draw import disk
        >>> image = np.zeros((96, 96))
        >>> image[disk((30, 40), 12)] = image[disk((70, 60), 10)] = 1
        >>> found = load("nuclei", device="cpu").segment(image)
        >>> len(found)
        2
    """
    from attractor.model import Model
    from attractor.prediction.image import Segmenter

    model = Model.load(name_or_path)
    return Segmenter(
        model,
        device=device,
        thresholds=thresholds,
        engine=engine,
        dtype=dtype,
        whole_masks=whole_masks,
        tta_scales=tta_scales,
        copies=False,
    )


def __getattr__(name: str) -> object:
    """Import slow modules only when they are first asked for, so that `attractor --help` appears at once."""
    if name in LATER:
        module, attribute = LATER[name]
        found = import_module(module)
        return getattr(found, attribute) if attribute else found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
