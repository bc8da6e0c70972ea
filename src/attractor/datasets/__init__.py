"""Annotated images in the layouts that are in use; `open_dataset` finds out which one a folder has.

A data set is a sequence of samples that are read when asked for: see `attractor.datasets.sample`.
"""

from __future__ import annotations

from pathlib import Path

from attractor.datasets.cityscapes import Cityscapes
from attractor.datasets.coco import Coco
from attractor.datasets.crops import Crops, cropped
from attractor.datasets.ctc import Ctc
from attractor.datasets.cvppp import Cvppp
from attractor.datasets.dsb2018 import Dsb2018
from attractor.datasets.geojson import GeoJson
from attractor.datasets.imagej import ImageJ
from attractor.datasets.label_images import LabelImages
from attractor.datasets.labelme import Labelme
from attractor.datasets.layout import Divided, Evidence, Layout
from attractor.datasets.pascal_voc import PascalVoc
from attractor.datasets.sample import Dataset, Sample
from attractor.datasets.session import SessionImages
from attractor.datasets.splitting import Subset, split
from attractor.errors import InputError

__all__ = [
    "DATASETS",
    "Crops",
    "Dataset",
    "Sample",
    "Subset",
    "cropped",
    "layout_of",
    "open_dataset",
    "split",
    "split_path",
]

DATASETS: dict[str, Layout] = {
    "label-images": LabelImages,
    "coco": Coco,
    "cityscapes": Cityscapes,
    "pascal-voc": PascalVoc,
    "cvppp": Cvppp,
    "dsb2018": Dsb2018,
    "geojson": GeoJson,
    "labelme": Labelme,
    "imagej": ImageJ,
    "ctc": Ctc,
    "session": SessionImages,
}


def layout_of(path: str | Path) -> str:
    """The name in DATASETS of the layout that recognises the path; if several do, the surest.

    Raises:
        InputError: if none does, or two are equally sure; the message lists the layouts.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such data set; check the name and the folder you are in.")
    found = _recognised(path)
    if len(found) > 1:
        raise InputError(
            f"{path}: holds annotations in several layouts, {' and '.join(found)}; move away the ones you do not mean."
        )
    if found:
        return found[0]
    layouts = "; ".join(f"{name}: {layout.layout}" for name, layout in DATASETS.items())
    inside = [part.name for part in sorted(path.glob("*/")) if _recognised(part)]
    hint = f" There are data sets in it, though: {', '.join(inside[:5])}." if inside else ""
    raise InputError(f"{path}: is not in any layout known here. These are accepted: {layouts}.{hint}")


def _recognised(path: Path) -> list[str]:
    """The layouts that recognise the path most surely: only one, if all is well."""
    evidence = {name: layout.recognises(path) for name, layout in DATASETS.items()}
    surest = max(evidence.values())
    return [name for name, own in evidence.items() if own == surest > Evidence.NONE]


def open_dataset(path: str | Path, *, split: str | None = None) -> Dataset:
    """The data set at a path, whatever its layout.

    Its samples are read when they are asked for:

    >>> from attractor.demo import FOLDER
    >>> nuclei = open_dataset(FOLDER)
    >>> nuclei.names, nuclei.class_names
    (('fluorescence', 'stained'), ('object',))
    >>> int(nuclei[0].labels.max())
    92

    Args:
        path: a folder or file in one of the layouts in DATASETS.
        split: which part to open if a folder holds several, such as "val".

    Raises:
        InputError: if no layout fits, there is no such split, or what is there cannot be used.
    """
    path = split_path(path, split)
    return DATASETS[layout_of(path)](path)


def split_path(path: str | Path, split: str | None) -> Path:
    """The path that opens only one split of a data set; without a split, the path itself.

    Raises:
        InputError: if no layout fits, or there is no such split; the message lists those that there are.
    """
    path = Path(path)
    if split is None:
        return path
    layout = DATASETS[layout_of(path)]
    splits = layout.splits(path) if isinstance(layout, Divided) else {}
    if not splits:
        raise InputError(f'{path}: holds no splits to choose from; leave out the split "{split}".')
    if split not in splits:
        raise InputError(f'{path}: has no split "{split}"; there are: {", ".join(splits)}.')
    return splits[split]
