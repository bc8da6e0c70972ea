"""`attractor models` and `attractor demo`: what comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

import attractor
from attractor.cli.app import Device
from attractor.cli.printing import say, show
from attractor.tables import plain_table
from attractor.wording import share

if TYPE_CHECKING:
    pass


def models() -> None:
    """List the models that come with attractor: what they were trained on, and how good they are."""
    from attractor.model import read_description
    from attractor.weights import MODELS

    if not MODELS:
        say("No model comes with this installation; `attractor train DATASET` makes one.")
        return
    table = plain_table()
    for name in ("model", "method", "classes", "object size", "file"):
        table.add_column(name, overflow="fold")  # a name that is cut off cannot be given
    remarks = []
    for name, path in MODELS.items():
        description = read_description(path)
        size = f"{description.object_size:g} px" if description.object_size else "any"
        classes = ", ".join(description.class_names)
        file = f"{path.stat().st_size / 1e6:.1f} MB"
        table.add_row(name, description.method, classes, size, file)
        remarks.append(f"{name}: {description.about} {_scores_in_words(description.scores)}".strip())
    show(table)
    for remark in remarks:
        Console().print(remark, markup=False, highlight=False)


def _scores_in_words(scores: dict[str, Any]) -> str:
    """Scores of each set of images, as in "Scores on test images: mean .55, ap50 .80."."""
    sets = [(name, values) for name, values in sorted(scores.items()) if isinstance(values, dict)]
    return " ".join(
        f"Scores on {name} images: {', '.join(f'{key} {share(value)}' for key, value in values.items())}."
        for name, values in sets
        if all(isinstance(value, int | float) for value in values.values())
    )


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"), device: Device = "auto"
) -> None:
    """Segment the nuclei of a stained tissue section, an image that comes with scikit-image."""
    import skimage.data
    from skimage.color import rgb2hed

    from attractor.images import read_image, write_image
    from attractor.prediction.folder import make_writable, write_result

    # Nuclei are blue here and all else brown, which no training image was: the blue stain alone looks familiar, and the
    # threshold that was tuned for familiar images is lowered.
    segmenter = attractor.load("nuclei", device=device, thresholds={"seed_threshold": 0.5})
    make_writable(out)
    # read as a file, since skimage.data.immunohistochemistry() downloads it where it is not installed
    picture = read_image(Path(skimage.data.__file__).parent / "ihc.png")
    image = out / "immunohistochemistry.png"
    write_image(image, picture)
    found = segmenter.segment(rgb2hed(picture)[..., 0], tta=True)
    write_result(picture, found, segmenter.class_names, out, image.name)
    stem = out / image.stem
    say(f"Found {len(found)} nuclei in {image}, a section of colon from scikit-image, by their blue stain.")
    say(f"  {stem}_overlay.png   the picture with an outline around each\n  {stem}_labels.tif    the label image")
    say(f"  {stem}_objects.csv   a table of all nuclei")
