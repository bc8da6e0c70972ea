"""StarDist-3D, trained for a given time on a data set of volumes: what our own scores on volumes are compared with.

    pip install '.[peers]'
    python -m benchmarks.stardist_volumes embryos/train --test embryos/test --minutes 60 --out stardist
    attractor evaluate --found stardist --truth embryos/test

It has its documented settings: 96 rays, a U-Net, turns and mirror images where axes have equal steps, brightness that
varies, thresholds chosen on the volumes held out, which are a quarter: whole groups of files (what a name has before
its last underscore). The weights with the least loss on them are kept. Only its patches are smaller than its authors',
some three objects wide: on two processor cores a step takes a quarter of the time, so an hour has four times as many.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

N_RAYS = 96
PATCH = 32, 64, 64  # planes, rows, columns
BATCH = 2
STEPS = 40  # of an epoch, after each of which the loss on the volumes held out is computed
HELD_OUT = 0.25
LONG = 1.5  # objects of how many times the extent keep their resolution along an axis


def deadline(seconds):
    """What ends the training when its time is over."""
    from tensorflow import keras

    end = time.monotonic() + seconds

    class Deadline(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = time.monotonic() > end

    return Deadline()


def pictures_in(folder):
    """The TIFF stacks of a data set, and each as a normalised volume (planes, rows, columns)."""
    from csbdeep.utils import normalize

    files = sorted((folder / "images").glob("*.tif"))
    return files, [normalize(tifffile.imread(file), 1, 99.8).astype(np.float32) for file in files]


def split(files):
    """Places of the files to learn from, and of those held out: whole groups, from the last on."""
    group = [file.stem.rpartition("_")[0] for file in files]
    held = set()
    for name in sorted(set(group), reverse=True):
        if sum(one in held for one in group) < HELD_OUT * len(files):
            held.add(name)
    places = range(len(files))
    return [k for k in places if group[k] not in held], [k for k in places if group[k] in held]


def varied(picture, labels):
    """A patch turned within its planes, mirrored, and of another brightness."""
    turns = np.random.randint(4)
    picture, labels = (np.rot90(array, turns, (1, 2)) for array in (picture, labels))
    for axis in range(3):
        if np.random.rand() < 0.5:
            picture, labels = np.flip(picture, axis), np.flip(labels, axis)
    noise = 0.02 * np.random.normal(0, np.random.rand(), picture.shape)
    return picture * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2) + noise, labels


def network(labels, patch, basedir):
    """A StarDist-3D model for objects of such extents."""
    from stardist import Rays_GoldenSpiral, calculate_extents
    from stardist.models import Config3D, StarDist3D

    extents = calculate_extents(labels)
    anisotropy = tuple(np.max(extents) / extents)
    config = Config3D(
        rays=Rays_GoldenSpiral(N_RAYS, anisotropy=anisotropy),
        grid=tuple(1 if ratio > LONG else 2 for ratio in anisotropy),
        anisotropy=anisotropy,
        n_channel_in=1,
        train_patch_size=patch,
        train_batch_size=BATCH,
        train_tensorboard=False,
        train_reduce_lr={"factor": 0.5, "patience": 10, "min_delta": 0},
    )
    return StarDist3D(config, name="stardist", basedir=basedir)


def patch_within(pictures, grid=8):
    """The patch, cut to what all volumes have, in steps that the network can halve."""
    least = np.min([picture.shape for picture in pictures], 0)
    return tuple(int(min(asked, n // grid * grid)) for asked, n in zip(PATCH, least, strict=True))


def main():
    """Train, and write the labels of the test volumes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="folder with images/ and labels/, TIFF stacks of equal names")
    parser.add_argument("--test", type=Path, required=True, help="folder with images/")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, required=True, help="where label stacks go")
    given = parser.parse_args()
    files, pictures = pictures_in(given.train)
    labels = [tifffile.imread(given.train / "labels" / file.name).astype(np.int32) for file in files]
    own, held = split(files)
    print(f"{len(own)} volumes to learn from, {len(held)} held out", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        ends = deadline(60 * given.minutes)
        model = network([labels[k] for k in own], patch_within(pictures), scratch)
        model.prepare_for_training()
        model.callbacks.append(ends)
        history = model.train(
            [pictures[k] for k in own],
            [labels[k] for k in own],
            validation_data=([pictures[k] for k in held], [labels[k] for k in held]),
            augmenter=varied,
            epochs=1_000_000,
            steps_per_epoch=STEPS,
        )
        print(f"{STEPS * len(history.epoch)} steps in {given.minutes:g} minutes", flush=True)
        print(model.optimize_thresholds([pictures[k] for k in held], [labels[k] for k in held]), flush=True)
        given.out.mkdir(parents=True, exist_ok=True)
        for file, picture in zip(*pictures_in(given.test), strict=True):
            found = model.predict_instances(picture)[0]
            tifffile.imwrite(given.out / f"{file.stem}_labels.tif", found.astype(np.uint16), compression="zlib")
            print(f"{file.name}: {found.max()} objects", flush=True)


if __name__ == "__main__":
    main()
