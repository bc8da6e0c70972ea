"""`attractor models` and `attractor demo`: what comes with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

import attractor
from attractor.cli.app import Device
from attractor.cli.printing import say, show
from attractor.wording import counted, share

if TYPE_CHECKING:
    import numpy as np

    from attractor.instances import Instances
    from attractor.prediction.image import Segmenter


def models() -> None:
    """List the models that come with attractor: what they were trained on, and how good they are."""
    from attractor.description import read_description
    from attractor.weights import MODELS

    if not MODELS:
        say("This installation comes without models; `attractor train DATASET` makes one.")
        return
    from attractor.tables import plain_table  # loads numpy

    table = plain_table()
    for name in ("model", "finds", "object size", "licence", "score on test images"):
        table.add_column(name, overflow="fold", no_wrap=name.startswith(("model", "score")))  # a name must be whole
    remarks = []
    for name, path in MODELS.items():
        description = read_description(path)
        size = f"{description.object_size:g} px" if description.object_size else "any"
        classes = ", ".join(description.class_names)
        file = f"{path.stat().st_size / 1e6:.1f} MB"
        table.add_row(name, classes, size, description.licence or "-", _test_score(description.scores))
        remarks.append(f"{name}: {description.method}, {file}. {description.about}".strip())
    show(table)
    say("Scores are with 95 % intervals, on images that training and tuning never saw.")
    say("Licences are those of the images that a model has learned from.")
    for remark in remarks:
        Console().print(remark, markup=False, emoji=False, highlight=False)


def _test_score(scores: Mapping[str, object]) -> str:
    """A line for each score on test images, as in "AP .50 .814 (.782-.845)", and how; a dash if none is known."""
    test = scores.get("test")
    if not isinstance(test, dict):
        return "-"
    lines = [
        f"{name} {_interval(value)}" for name, value in test.items() if isinstance(value, list) and len(value) == 3
    ]
    ways = test.get("with")
    if lines and isinstance(ways, list):
        lines += [f"({way})" for way in ways]
    return "\n".join(lines) or "-"


def _interval(values: list[float]) -> str:
    """A score in three digits, with its interval."""
    middle, low, high = map(share, values)
    return f"{middle} ({low}-{high})"


STRANGE = "immunohistochemistry"  # the picture of scikit-image in a stain that no training image has


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"), device: Device = "auto"
) -> None:
    """Segment two pictures of nuclei that come with attractor, and one in a stain that the model has never seen."""
    from attractor.demo import PICTURES
    from attractor.images import read_image
    from attractor.prediction.folder import make_writable

    make_writable(out)
    segmenter = attractor.load("nuclei", device=device)
    for name, path in PICTURES.items():
        picture = read_image(path)
        found = segmenter.segment(picture)
        _write_demo(picture, found, segmenter, out / f"{name}.png")
        say(f"Found {counted(len(found), 'nucleus', 'nuclei')} in {out / name}.png.")
    picture, found = _strange_stain(device)
    _write_demo(picture, found, segmenter, out / f"{STRANGE}.png")
    say(
        f"Found {counted(len(found), 'nucleus', 'nuclei')} in {out / STRANGE}.png, about half of those there: "
        "the model has never seen a brown stain. For pictures unlike those it knows, annotate about 20 of your own "
        "and train on them: attractor train mine --from nuclei"
    )
    say(f"Look at {out}/*_overlay.png; beside each are the label image, *_labels.tif, and a table, *_objects.csv.")


def _write_demo(picture: np.ndarray, found: Instances, segmenter: Segmenter, path: Path) -> None:
    """Write the picture, and beside it the files that `attractor segment` writes."""
    from attractor.images import write_image
    from attractor.prediction.folder import write_result

    write_image(path, picture)
    write_result(picture, found, segmenter.class_names, path.parent, path.name)


def _strange_stain(device: str) -> tuple[np.ndarray, Instances]:
    """A section of colon, and the nuclei that can be found in it without training: 156, while `segment` finds one.

    Here nuclei are blue and everything else is brown. The blue stain alone looks familiar to the model, and the
    threshold, which was tuned on familiar images, is lowered.
    """
    import skimage.data
    from skimage.color import rgb2hed

    from attractor.images import read_image

    # read as a file, since skimage.data.immunohistochemistry() downloads it where it is not installed
    picture = read_image(Path(skimage.data.__file__).parent / "ihc.png")
    segmenter = attractor.load("nuclei", device=device, thresholds={"seed_threshold": 0.5})
    return picture, segmenter.segment(rgb2hed(picture)[..., 0], tta=True)
