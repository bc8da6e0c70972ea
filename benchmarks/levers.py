"""What each setting of training is worth: one at a time, with the same images, number of steps, and seeds.

    python -m benchmarks.levers DATA [--out runs/levers] [--seeds 0 1] [--only LEVER ...] [--model nuclei]
                                [--steps 200] [--set key=value ...]

Every second image of DATA is learned from, and the model is scored on the others, which nothing is tuned or chosen on:
thresholds stay as the recipe has them, and the epoch is chosen by the images that are learned from. All trainings start
from the weights of `--model`, or from scratch if it is "none".

The table has the mean over the seeds and the range. A setting is said to help, or to harm, only where its range and
that of the plain recipe do not overlap; with two seeds that happens by chance to a third of the settings that do
nothing, with three to a tenth.

What is trained is kept in the folder `--out`, and not trained again.
"""

from __future__ import annotations

import json
from pathlib import Path

from attractor.datasets import Dataset, Subset, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.errors import InputError
from attractor.evaluation import evaluate_model
from attractor.model import Model
from attractor.prediction.image import Segmenter
from attractor.recipe import recipe_for
from attractor.runs import run
from benchmarks.harness import keep, options, print_machine, print_table

PLAIN = "plain"
LEVERS: dict[str, tuple[str, ...]] = {
    PLAIN: (),
    "seed loss by objects": ('model.options.seed_mean="objects"',),
    "seed loss by pixels": ('model.options.seed_mean="pixels"',),
    "seeds from distance": ('model.options.seed_target="distance"',),
    "seeds first": ("model.options.seed_epochs=1",),
    "claims as published": ("model.options.recentre=0",),
    "skips": ("model.network_options.skips=true",),
    "one decoder": ("model.network_options.one_decoder=true",),
    "one decoder, skips": ("model.network_options.one_decoder=true", "model.network_options.skips=true"),
    "moving average": ("training.average=0.98",),
    "AdamW": ('training.optimizer="adamw"', "training.weight_decay=0.01"),
    "cosine": ('training.schedule="cosine"',),
    "missed objects": ("training.around_missed=0.5",),
    "pasted objects": ("augmentation.paste=0.5",),
    "sizes of other images": ("augmentation.even_sizes=2.0",),
    "scale .5 to 2": ("augmentation.scale=[0.5, 2.0]",),
    "blur": ("augmentation.blur=2.0",),
    "noise": ("augmentation.noise=0.1",),
    "gamma": ("augmentation.gamma=0.6",),
    "contrast": ("augmentation.contrast=0.6", "augmentation.brightness=0.2"),
    "texture": ("augmentation.texture=0.5",),
    "halo": ("augmentation.halo=0.5",),
    "bit depth": ("augmentation.bit_depth=4.0",),
    "stain": ("augmentation.stain=0.3",),
    "inversion": ("augmentation.invert=0.2",),
}
SHOWN = ("AP .50", "AP .75", "AP .90", "mean AP")
BATCH, CROP, EPOCHS = 8, 256, 5

Scores = dict[str, float]


def main() -> None:
    """Train what is missing, score everything, print the table."""
    given = options(
        __doc__.splitlines()[0],
        ("data", {"type": Path, "help": "annotated images"}),
        ("--out", {"type": Path, "help": "by default a folder in runs, named after the data"}),
        ("--seeds", {"type": int, "nargs": "+", "default": [0, 1]}),
        ("--only", {"nargs": "+", "choices": list(LEVERS), "metavar": "LEVER", "help": f"of {', '.join(LEVERS)}"}),
        ("--model", {"default": "nuclei", "help": 'whose weights to start from; "none" for none'}),
        ("--steps", {"type": int, "default": 200, "help": f"of {BATCH} crops of {CROP} x {CROP} pixels"}),
        ("--set", {"action": "append", "default": [], "dest": "changes", "help": "of every training"}),
    )
    out = given.out or Path("runs") / f"levers-{given.data.resolve().name}"
    print_machine()
    learn, others = halves(given.data, out)
    changes = [*plain_changes(learn, given.steps), *given.changes]
    names = list(dict.fromkeys([PLAIN, *(given.only or LEVERS)]))
    found: dict[str, list[Scores]] = {name: [] for name in names}
    for seed in given.seeds:
        for name in names:
            own = [*changes, f"training.seed={seed}", *LEVERS[name]]
            folder = out / f"{name.replace(' ', '-')}-{seed}"
            found[name].append(scored(folder, learn, others, own, None if given.model == "none" else given.model))
            print(f"{folder}: " + ", ".join(f"{key} {value:.3f}" for key, value in found[name][-1].items()), flush=True)
    print_table(f"{given.data.name}: {len(others)} images, {len(given.seeds)} seeds", table(found))
    keep(given.json or out / "levers.json", {"data": str(given.data), "changes": given.changes, "found": found})


def halves(data: Path, out: Path) -> tuple[Path, Dataset]:
    """The folder of the images that are learned from, and the images that are scored on."""
    dataset, learn = open_dataset(data), out / "learn"
    if len(dataset) < 2:
        raise InputError(f"{data}: has a single image; half of the images are learned from, and half are scored on.")
    if not learn.exists():
        write_label_images(learn, list(Subset(dataset, range(0, len(dataset), 2))))
    return learn, Subset(dataset, range(1, len(dataset), 2))


def plain_changes(learn: Path, steps: int) -> list[str]:
    """The keys that all trainings have: so many steps, and no choice by images that are not learned from."""
    return [
        f"data.validation={json.dumps(str(learn), ensure_ascii=False)}",
        "training.few_objects=1000000000",
        f"training.epochs={EPOCHS}",
        f"training.crops_per_epoch={max(1, round(steps / EPOCHS)) * BATCH}",
        f"training.batch_size={BATCH}",
        f"training.crop_size={CROP}",
        "training.patience=0",
        "training.minutes=0",
    ]


def scored(folder: Path, learn: Path, others: Dataset, changes: list[str], start: str | None) -> Scores:
    """The scores of a training, which is done first unless the folder has it.

    Raises:
        InputError: if the folder holds a training with other keys.
    """
    file = folder / "scores.json"
    asked = {"changes": changes, "start": start}
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["asked"] != asked:
            raise InputError(f"{folder}: holds a training with other keys, {kept['asked']}; give another --out.")
        return dict(kept["scores"])
    resume = (folder / "last.ckpt").exists()
    run(recipe_for(learn, changes, start=start), folder, resume=resume)
    summary = evaluate_model(Segmenter(Model.load(folder)), others).summary
    values = [float(summary.by_image.value[summary.index(iou)]) for iou in (0.5, 0.75, 0.9)]
    scores = dict(zip(SHOWN, [*values, float(summary.mean_average_precision.value)], strict=True))
    file.write_text(json.dumps({"asked": asked, "scores": scores}))
    return scores


def table(found: dict[str, list[Scores]]) -> list[dict[str, str]]:
    """A row for each setting: the mean over the seeds, and what it is worth by the mean AP."""
    rows = []
    for name, seeds in found.items():
        means = {key: sum(scores[key] for scores in seeds) / len(seeds) for key in SHOWN}
        row = {"setting": name, **{key: f"{value:.3f}" for key, value in means.items()}}
        low, high = (best(scores["mean AP"] for scores in seeds) for best in (min, max))
        rows.append(row | {"range": f"{low:.3f} to {high:.3f}", "helps": verdict(found[PLAIN], seeds)})
    return rows


def verdict(plain: list[Scores], seeds: list[Scores]) -> str:
    """Whether a setting helps: whether each of its seeds is better, or each is worse, than every one of the plain."""
    ours, theirs = ([scores["mean AP"] for scores in each] for each in (seeds, plain))
    if min(ours) > max(theirs):
        return "yes"
    return "harms" if max(ours) < min(theirs) else "-"


if __name__ == "__main__":
    main()
