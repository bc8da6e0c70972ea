"""Segment an image with an exported model: onnxruntime, NumPy and Pillow, without torch and without attractor.

    attractor export nuclei                                                 # writes nuclei.onnx
    python segment_without_torch.py nuclei.onnx cells.png cells_labels.tif

For models of the method spatial-embeddings with its objective "gaussian" or "hinge". Copy from here what you need.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model, image, out):
    """Write the label image of an image file: 0 is background, 1 to k are objects."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["attractor"])
    if about["method"] != "spatial-embeddings" or about["options"]["objective"] == "regression":
        sys.exit(f"{model}: this example groups spatial embeddings only.")
    pixels = read(image, about["channels"])
    names = [output.name for output in session.get_outputs()]
    maps = dict(zip(names, session.run(names, {"images": pixels[None]}), strict=True))
    labels, classes, _ = objects_of({name: values[0] for name, values in maps.items()}, about["options"])
    if (pixels == pixels[:, :1, :1]).all():  # nothing can be told apart
        labels, classes = np.zeros_like(labels), classes[:0]
    Image.fromarray(labels.astype(np.uint16 if len(classes) < 1 << 16 else np.int32)).save(out)
    print(f"{len(classes)} objects in {out}")


def read(path, channels):
    """The image as the model takes it: float32 (c, h, w), values as in the file, grey or colour as it was trained."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode not in ("L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
        image = image.convert("RGB")
    pixels = np.atleast_3d(np.asarray(image)).astype(np.float32)
    if pixels.shape[2] == 3 and channels == 1:
        pixels = np.rint(pixels @ np.float32([0.299, 0.587, 0.114]))[..., None]
    return np.repeat(pixels, channels // pixels.shape[2], axis=2).transpose(2, 0, 1)


def objects_of(maps, options):
    """Labels, classes and scores from the raw maps of one image; where two classes claim a pixel the surer one wins."""
    embedding, concentration, seed = decoded(maps, options)
    labels, classes, best = np.zeros(seed.shape[1:], np.int32), np.int32([0]), np.float32([0])
    for c, scores_of_class in enumerate(seed):
        found, scores = group(embedding, concentration, scores_of_class, options)
        wins = (found > 0) & (np.append(-1, scores)[found] > best[labels])
        labels[wins] = found[wins] + len(best) - 1
        best, classes = np.append(best, scores), np.append(classes, np.full(len(scores), c + 1))
    if len(seed) > 1:  # what another class leaves of an object must be large enough, too
        labels[np.bincount(labels.ravel())[labels] < options["min_size"]] = 0
    kept = np.unique(labels[labels > 0])  # objects that lost all their pixels are no more
    return np.searchsorted(kept, labels, side="right").astype(np.int32), classes[kept], best[kept]


def decoded(maps, options):
    """Where each pixel points, (row, column) in grid units; 1 / (2 sigma^2) along both; and its seed scores, 0 to 1."""
    _, h, w = maps["offset"].shape
    steps = np.float32(options["grid_step"])[:, None, None]
    position = np.indices((h, w)).astype(np.float32) * steps
    if options["margin"] == "fixed":
        sigma = np.log(math.log(2) / (options["fixed_margin"] * steps) ** 2) / 10
    else:
        sigma = maps["sigma"]
    concentration = np.broadcast_to(np.exp(10 * sigma), (2, h, w))
    return position + np.tanh(maps["offset"]), concentration, 1 / (1 + np.exp(-maps["seed"]))


def group(embedding, concentration, seed, options):
    """Objects of one class: the best seed claims what lies inside its margin, then the best of what is left."""
    labels, scores = np.zeros(seed.shape, np.int32), []
    foreground = seed > options["foreground_threshold"]
    (y, x), (ty, tx), score = embedding[:, foreground], concentration[:, foreground], seed[foreground]
    owner, free = np.zeros(len(score), np.int32), np.ones(len(score), bool)
    while len(score) > options["min_foreground"] and free.sum() > options["min_free"]:
        best = np.where(free, score, -1).argmax()
        if score[best] < options["seed_threshold"]:
            break
        free[best] &= options["count_seed"]
        dx, dy = x - x[best], y - y[best]
        claim = dy * dy * ty[best] + dx * dx * tx[best] < np.float32(math.log(2))
        if claim.sum() >= options["min_size"] and 2 * (claim & free).sum() > claim.sum():
            scores.append(score[best])
            owner[claim if options["overwrite"] else claim & (owner == 0)] = len(scores)
        free &= ~claim
        free[best] = False
    labels[foreground] = owner
    return labels, np.float32(scores)


if __name__ == "__main__":
    main(*sys.argv[1:])
