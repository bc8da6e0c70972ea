"""Fixed, circular or elliptical margin, fixed or learnable centre: the paper's Table 2 on your own data.

    python -m benchmarks.ablation DATA --test TEST [--out runs/ablation] [--seeds 0 1] [--only ROW ...]
                                  [--start nuclei] [--set key=value ...]

Five rows, which differ only in `margin` and `centre`; the same images, crops, budget and seeds for all. Every row
starts with the margin that the first one keeps: `--fixed-margin`, 20 pixels of the images as they are given (the
paper's number), so 10 pixels of halved images. With `--start`, the encoder of that model is taken over and the decoders
start from scratch, since they were trained for one of the five rows.

Each model is scored on the test images in two ways.

*Seeded by the truth*, as in the paper: centre and bandwidth of each object are read off its true pixels, and its mask
is what lies inside the margin. The masks may overlap, and each belongs to one true object, so nothing is matched and no
pixel has to be given to one of two: an object whose mask has an IoU of at least t with its own truth is a true
positive, and any other is a false positive and a false negative. With m of k objects right, an image's AP is
m / (m + 2 (k - m)). The paper's numbers are Cityscapes' AP, over eight classes: the order can be compared, the values
cannot.

*By its own grouping*, as `attractor evaluate` does it, with the thresholds that training tuned on the validation part
of the training images.

The table has the mean over the seeds and the range. One row is said to be above another only where their ranges do not
overlap; with two seeds that happens by chance to a third of the pairs of equal rows, with three to a tenth.

A run whose model is in its folder is not repeated, and an interrupted one is resumed; so the rows can be trained one by
one with `--only` and `--seeds`, and the same call without them makes the table.

`--out` gets a folder for each run, the table as `ablation.json`, and `sigma.png`: the learned margins of the objects of
the test images against their sizes, by the first seed's elliptical model with a learnable centre.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attractor.datasets import Dataset, Sample, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.description import Description
from attractor.errors import InputError
from attractor.evaluation import evaluate, predicted
from attractor.instances import Instances, relabel
from attractor.metrics.average_precision import THRESHOLDS, ImageScores, Summary, summarise
from attractor.model import Model
from attractor.normalisation import Normalisation
from attractor.plots import rank_correlation, sigma_against_size
from attractor.prediction.image import Segmenter
from attractor.recipe import Recipe, _set, read_recipe, recipe_of
from attractor.runs import run
from attractor.truth import Objects, Truth
from benchmarks.harness import keep, print_machine, print_table


@dataclass(frozen=True)
class Row:
    """One row of Table 2."""

    margin: str
    centre: str
    paper: float  # AP in per cent, seeded by the truth, on the validation images of Cityscapes


ROWS = {
    "fixed": Row("fixed", "centroid", 28.0),
    "circular-centroid": Row("circular", "centroid", 38.7),
    "circular-learnable": Row("circular", "learnable", 39.5),
    "elliptical-centroid": Row("elliptical", "centroid", 39.1),
    "elliptical-learnable": Row("elliptical", "learnable", 40.5),
}
BEST = "elliptical-learnable"
TRAINING = {"epochs": 10, "crops_per_epoch": 1600, "crop_size": 128, "batch_size": 8, "learning_rate": 1e-3}
VALIDATION = 0.15  # of the training images
WAYS = {"seeded": "seeded by the truth", "own": "by its own grouping"}
SHOWN = {"ap50": "AP .50", "ap75": "AP .75", "mean": "mean AP"}  # the mean is over .50 to .95
N_SAMPLES = 1000  # bootstrap samples of the rank correlation


def main() -> None:
    """Train what is missing, score everything, print the table."""
    arguments = _arguments()
    out = arguments.out
    data = scaled_copy(arguments.data, out / "images", "train", arguments.scale)
    test = open_dataset(scaled_copy(arguments.test, out / "images", "test", arguments.scale))
    margin = arguments.fixed_margin * arguments.scale
    print_machine()
    print(f"The fixed margin, and the one that the others begin with: {margin:g} pixels.", flush=True)

    runs: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in arguments.only}
    for seed, name in itertools.product(arguments.seeds, arguments.only):
        recipe = recipe_of_row(data, ROWS[name], seed, margin=margin, start=arguments.start, changes=arguments.changes)
        folder = out / f"{name}-{seed}"
        train_once(recipe, folder, arguments.start)
        runs[name][seed] = scores_of(folder, test)
        print(f"{folder}: {_in_words(runs[name][seed])}", flush=True)

    claims = _print_results(runs)
    results = {"data": arguments.data, "test": arguments.test, "scale": arguments.scale, "margin": margin}
    results |= {"changes": arguments.changes, "start": arguments.start, "rows": _by_row(runs), "above": claims}
    if BEST in runs:
        results["sigma"] = draw_sigma(out / f"{BEST}-{arguments.seeds[0]}", test, out / "sigma.png")
    keep(out / "ablation.json", results)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="the data set to train on")
    parser.add_argument("--test", required=True, help="the data set to score on")
    parser.add_argument("--out", default="runs/ablation", type=Path)
    parser.add_argument("--seeds", default=[0, 1], type=int, nargs="+")
    parser.add_argument(
        "--only", default=list(ROWS), choices=list(ROWS), nargs="+", metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--start", help="the model whose encoder to start from; without it, start from scratch")
    parser.add_argument("--scale", default=0.5, type=float, help="of the images: 0.5 halves their sides, 1 leaves them")
    parser.add_argument("--fixed-margin", default=20.0, type=float, help="in pixels of the images as they are given")
    parser.add_argument("--set", action="extend", nargs="+", default=[], dest="changes", help="as in training.epochs=2")
    return parser.parse_args()


# -------------------------------------------------------------------- images


def scaled_copy(data: str, folder: Path, part: str, scale: float) -> str:
    """The data set, or the folder of its copy with smaller images, which is made if it is missing.

    Raises:
        InputError: if the scale is not above 0 and at most 1, or label images cannot hold what is annotated.
    """
    if not 0 < scale <= 1:
        raise InputError(f"--scale is {scale}; it is a factor above 0 and up to 1.")
    if scale == 1:
        return data
    copy = folder / f"{part}_{scale:g}"
    if not copy.exists():
        folder.mkdir(parents=True, exist_ok=True)
        dataset = open_dataset(data)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            write_label_images(Path(unfinished, part), _scaled_samples(dataset, scale), columns=dict(dataset.columns))
            with contextlib.suppress(OSError):  # where another run has made it meanwhile
                os.rename(Path(unfinished, part), copy)
    return str(copy)


def _scaled_samples(dataset: Dataset, scale: float) -> Iterator[Sample]:
    for index in range(len(dataset)):
        sample = dataset[index]
        if len(dataset.class_names) > 1 or sample.ignore.any():
            raise InputError(
                f"{sample.name}: a copy holds neither classes nor ignored pixels; give --scale 1 to use these images."
            )
        yield scaled(sample, scale)


def scaled(sample: Sample, scale: float) -> Sample:
    """The sample with fewer pixels: the average of the image's area under each, and the label in its middle.

    An object that keeps no pixel is left out.
    """
    height, width = (max(1, round(n * scale)) for n in sample.labels.shape)
    image = _averaged(_averaged(sample.image.astype(float), 0, height), 1, width)
    if np.issubdtype(sample.image.dtype, np.integer):
        image = np.rint(image)
    rows, columns = (
        ((np.arange(m) + 0.5) * n / m).astype(int) for m, n in zip((height, width), sample.labels.shape, strict=True)
    )
    labels, kept = relabel(sample.labels[np.ix_(rows, columns)])
    return Sample(
        sample.name,
        image.astype(sample.image.dtype),
        labels,
        sample.classes[kept - 1],
        sample.ignore[np.ix_(rows, columns)],
    )


def _averaged(values: np.ndarray, axis: int, count: int) -> np.ndarray:
    """The mean over each of `count` equal parts of an axis; a value that lies in two parts counts for each in part."""
    values = np.moveaxis(values, axis, 0)
    sums = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    edges = np.linspace(0, len(values), count + 1)
    below = np.minimum(edges.astype(int), len(values) - 1)
    share = (edges - below).reshape(-1, *[1] * (values.ndim - 1))
    upto = sums[below] + share * values[below]
    return np.moveaxis(np.diff(upto, axis=0) * count / len(values), 0, axis)


# -------------------------------------------------------------------- training


def recipe_of_row(
    data: str, row: Row, seed: int, *, margin: float, start: str | None, changes: Sequence[str]
) -> Recipe:
    """The recipe of one run: the same for all but the row's two options and the seed, which no change can alter."""
    content: dict[str, Any] = {
        "data": {"train": data, "validation": VALIDATION},
        "model": _network(data, start) | {"options": {"initial_margin": margin, "fixed_margin": margin}},
        "training": dict(TRAINING),
    }
    own = [f'model.options.margin="{row.margin}"', f'model.options.centre="{row.centre}"', f"training.seed={seed}"]
    for change in [*changes, *own]:
        _set(content, change)
    return recipe_of(content, "The recipe of the ablation")


def _network(data: str, start: str | None) -> dict[str, Any]:
    """What the model section says of network and input: as in the model to start from, or to suit the images."""
    if start is not None:
        model = Model.load(start).description
        normalisation = dataclasses.asdict(model.normalisation)
        same = {key: getattr(model, key) for key in ("method", "network", "channels", "network_options")}
        return same | {"normalisation": normalisation}
    dataset = open_dataset(data)
    channels = max(dataset[i].image.shape[-1] for i in range(len(dataset)))
    return {"channels": channels, "network_options": {"dropout": 0.1}}


def train_once(recipe: Recipe, folder: Path, start: str | None) -> None:
    """Train into the folder, unless its model is there; an interrupted run is resumed.

    Args:
        recipe: of the run.
        folder: for the model and all that training writes.
        start: the model whose encoder to begin with, if any.

    Raises:
        InputError: if the model that is there was trained with other settings, which would spoil the comparison.
    """
    if start is not None:
        file = folder / f"start_{Path(start).stem}.safetensors"
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": str(file)})})
    if (folder / "model.safetensors").exists():
        return _check_settings(recipe, folder)
    if start is not None and not file.exists():
        write_start(recipe, start, file)
    resume = (folder / "last.ckpt").exists()
    begin = time.perf_counter()
    run(recipe, folder, resume=resume)
    seconds = None if resume else time.perf_counter() - begin  # of an interrupted run only the rest is known
    (folder / "seconds.json").write_text(json.dumps(seconds))


def _check_settings(recipe: Recipe, folder: Path) -> None:
    if _settings(read_recipe(folder / "recipe.toml")) != _settings(recipe):
        raise InputError(
            f"{folder}: the model there was trained with other settings ({folder / 'recipe.toml'}), and rows can only "
            "be compared at the same ones; repeat the options of its call (--set, --start, --fixed-margin, --scale), "
            "or give another --out."
        )


def _settings(recipe: Recipe) -> dict[str, Any]:
    """All of a recipe but the folder that its files lie in."""
    settings = recipe.model_dump(mode="json", exclude={"data": {"train"}})
    start = settings["model"]["start"]
    settings["model"]["start"] = start and Path(start).name
    return settings


def write_start(recipe: Recipe, start: str, path: Path) -> None:
    """Write the model that a run begins with: the encoder of `start`, and new decoders for the recipe's row.

    Raises:
        InputError: if the encoder does not fit the recipe's network.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.training.seed)
    model = Model(
        Description(
            method=recipe.model.method,
            network=recipe.model.network,
            channels=recipe.model.channels,
            class_names=open_dataset(recipe.data.train).class_names,
            normalisation=Normalisation(**dataclasses.asdict(recipe.model.normalisation)),
            options=recipe.model.options,
            network_options=recipe.model.network_options,
        )
    )
    try:
        model.method.network.encoder.load_state_dict(Model.load(start).method.network.encoder.state_dict())
    except RuntimeError as error:
        raise InputError(f"{start}: its encoder does not fit the recipe's network; leave model.* as it is.") from error
    model.save(path)


# -------------------------------------------------------------------- scores


def scores_of(folder: Path, test: Dataset) -> dict[str, Any]:
    """AP by image of a run's model, by both ways of grouping, and the seconds that it trained."""
    segmenter = Segmenter(Model.load(folder), dtype="float32")
    seeded = summarise([seeded_scores(sample, found) for sample, found in seeded_by_truth(segmenter, test)])
    own = evaluate(predicted(segmenter, test)).summary
    seconds = folder / "seconds.json"
    return {
        "seeded": _shown(seeded),
        "own": _shown(own),
        "seconds": json.loads(seconds.read_text()) if seconds.exists() else None,
        "thresholds": dict(segmenter.model.method.thresholds),
    }


def _shown(summary: Summary) -> dict[str, float]:
    by_image = summary.by_image.value
    return {
        "ap50": float(by_image[summary.index(0.5)]),
        "ap75": float(by_image[summary.index(0.75)]),
        "mean": summary.mean_average_precision.value,
    }


def seeded_by_truth(segmenter: Segmenter, dataset: Dataset) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what the model makes of it when told the true objects."""
    for index in range(len(dataset)):
        sample = dataset[index]
        maps = segmenter.maps(segmenter.prepared(sample.image, name=sample.name))
        (found,) = segmenter.model.method.group_seeded(maps, _truth(sample, segmenter.device))
        yield sample, found


def _truth(sample: Sample, device: torch.device) -> Truth:
    """The annotation as a batch of one."""
    classes = torch.from_numpy(np.asarray(sample.classes, np.int64))
    parts = (torch.from_numpy(sample.labels), classes, torch.from_numpy(~sample.ignore))
    return Truth(*(part[None].to(device) for part in parts))


def seeded_scores(sample: Sample, found: Instances, *, thresholds: Sequence[float] = THRESHOLDS) -> ImageScores:
    """Counts of an image whose found objects belong to the true ones in order: each is right, or wrong twice."""
    labels = np.where(sample.ignore, 0, sample.labels)
    ids = np.unique(labels[labels > 0])
    masks = (found.mask(k + 1) & ~sample.ignore for k in range(len(found)))
    iou = np.array([_iou(labels == label, mask) for label, mask in zip(ids, masks, strict=True)])
    right = [iou[iou >= threshold] for threshold in thresholds]
    tp = np.array([len(part) for part in right])
    wrong = len(ids) - tp
    total = np.array([part.sum() for part in right], float)
    return ImageScores(sample.name, np.array(thresholds, float), tp, wrong, wrong, total, len(ids), len(ids))


def _iou(truth: np.ndarray, found: np.ndarray) -> float:
    """Intersection over union of two masks, the true one not empty."""
    return float((truth & found).sum() / (truth | found).sum())


# -------------------------------------------------------------------- the table


def above(values: Mapping[str, Sequence[float]]) -> list[tuple[str, str]]:
    """Pairs of rows, the first of which is above the second with every seed; a row with one seed says nothing."""
    return [
        (better, worse)
        for better, worse in itertools.permutations(values, 2)
        if min(len(values[better]), len(values[worse])) > 1 and min(values[better]) > max(values[worse])
    ]


def _values(runs: dict[str, dict[int, dict[str, Any]]], way: str, measure: str) -> dict[str, list[float]]:
    """One score of every row, by seed."""
    return {name: [scores[way][measure] for scores in by_seed.values()] for name, by_seed in runs.items()}


def _print_results(runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, list[tuple[str, str]]]:
    """Print a table for each way of grouping, with the claims that it allows, and give the claims."""
    claims = {}
    for way, title in WAYS.items():
        rows = []
        for name, by_seed in runs.items():
            cells = {text: _spread(_values(runs, way, key)[name]) for key, text in SHOWN.items()}
            paper = {"paper, AP in %": ROWS[name].paper} if way == "seeded" else {}
            rows.append({"margin, centre": name, **cells, **paper, "seconds a run": _seconds(by_seed.values())})
        n_seeds = len(next(iter(runs.values())))
        seeds = "one seed" if n_seeds == 1 else f"mean over {n_seeds} seeds (lowest to highest)"
        print_table(f"AP by image, {title}: {seeds}", rows)
        claims[way] = above(_values(runs, way, "mean"))
        _print_claims(claims[way], len(runs), n_seeds)
    return claims


def _print_claims(claims: Sequence[tuple[str, str]], n_rows: int, n_seeds: int) -> None:
    if n_seeds < 2:
        print("With one seed, no order is claimed.")
        return
    for better, worse in claims:
        agrees = "as in" if ROWS[better].paper > ROWS[worse].paper else "unlike"
        print(f"{better} is above {worse} in mean AP, {agrees} the paper.")
    n_pairs = n_rows * (n_rows - 1) // 2
    if n_pairs:
        print(f"In {n_pairs - len(claims)} of {n_pairs} pairs of rows the ranges overlap: no order is claimed.")
        chance = 2 / math.comb(2 * n_seeds, n_seeds)  # that all values of one of two equal rows come first
        print(f"With {n_seeds} seeds, chance alone sets apart {chance:.0%} of the pairs of rows that do not differ.")


def _spread(values: Sequence[float]) -> str:
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def _seconds(runs: Iterable[dict[str, Any]]) -> str:
    """Mean duration of the runs that were not interrupted."""
    known = [scores["seconds"] for scores in runs if scores["seconds"] is not None]
    return f"{np.mean(known):.0f}" if known else "unknown"


def _in_words(scores: dict[str, Any]) -> str:
    parts = [
        f"{title}, " + ", ".join(f"{text} {scores[way][key]:.3f}" for key, text in SHOWN.items())
        for way, title in WAYS.items()
    ]
    return "; ".join([*parts, f"seconds: {_seconds([scores])}"])


def _by_row(runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Every row with its runs, and mean and range of each score."""
    return {
        name: {
            **dataclasses.asdict(ROWS[name]),
            "runs": by_seed,
            "summary": {way: {key: _range(_values(runs, way, key)[name]) for key in SHOWN} for way in WAYS},
        }
        for name, by_seed in runs.items()
    }


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "lowest": min(values), "highest": max(values)}


# -------------------------------------------------------------------- learned margins


def draw_sigma(folder: Path, test: Dataset, path: Path) -> dict[str, float]:
    """Draw the learned margins of a run's model against the objects' sizes, and give their rank correlation."""
    sizes, margins, image = sizes_and_margins(Segmenter(Model.load(folder), dtype="float32"), test)
    low, high = correlation_interval(sizes, margins, image)
    sigma_against_size(sizes, margins, interval=(low, high), title=f"{len(test)} test images").savefig(path)
    value = rank_correlation(sizes, margins)
    print(f"\n{path}: rank correlation of margin and size {value:.3f} ({low:.3f} to {high:.3f}), {len(sizes)} objects")
    return {"rank_correlation": value, "low": low, "high": high, "objects": len(sizes)}


def sizes_and_margins(segmenter: Segmenter, dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each true object: the square root of its area, its margin, both in pixels, and the number of its image.

    The margin is that of the mean raw sigma over the object, as in grouping seeded by the truth; it is the geometric
    mean of those along rows and columns.
    """
    method = segmenter.model.method
    step = torch.tensor(method.grid_step)
    sizes, margins, image = [], [], []
    for index in range(len(dataset)):
        sample = dataset[index]
        maps = segmenter.maps(segmenter.prepared(sample.image, name=sample.name))
        objects = Objects.of(_truth(sample, segmenter.device))
        concentration = torch.exp(10 * objects.mean(maps.sigma)).cpu()  # (k, 1 or 2)
        margin = torch.sqrt(np.log(2) / concentration) / step  # (k, 2)
        sizes.append(objects.area.sqrt().cpu().numpy())
        margins.append(margin.log().mean(1).exp().numpy())
        image.append(np.full(len(margin), index))
    return np.concatenate(sizes), np.concatenate(margins), np.concatenate(image)


def correlation_interval(sizes: np.ndarray, margins: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the rank correlation over images: what other images might have given."""
    members = [np.flatnonzero(image == index) for index in np.unique(image)]
    if not members:
        return float("nan"), float("nan")
    random = np.random.default_rng(0)
    values = []
    for _ in range(N_SAMPLES):
        drawn = np.concatenate([members[i] for i in random.integers(len(members), size=len(members))])
        values.append(rank_correlation(sizes[drawn], margins[drawn]))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
