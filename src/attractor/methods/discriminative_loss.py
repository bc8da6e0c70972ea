"""Discriminative loss: embeddings of one object's pixels pull together, and the means of objects push apart.

The network gives each pixel a vector. In training, pixels further than one margin from the mean of their object are
pulled to it, and means nearer to each other than twice another margin are pushed apart; what is already in place is
left alone. A second branch says which class each pixel has. To group, mean shift climbs from a pixel to the middle of
its cluster, takes all pixels within the bandwidth, and continues with those that are left.

Source: De Brabandere et al., "Semantic Instance Segmentation with a Discriminative Loss Function", 2017.
Shapes: `b` images, `c` classes, `d` dimensions of the embedding, `s` the lengths of an image or volume along its axes,
`n` pixels, `k` objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import InputError, check_choice, check_number, check_thresholds
from attractor.instances import Instances
from attractor.kernels import parts
from attractor.kernels.mean_shift import mean_shift
from attractor.losses import cross_entropy
from attractor.methods.contract import NetworkMaker, Suggestions, check_reach, checked_weights
from attractor.networks.positions import places, positions
from attractor.semantics import group_by_class, likeliest_classes
from attractor.statistics import ObjectStatistics
from attractor.truth import Objects, Truth

COORDINATES = ("none", "input", "output")
MAX_ITERATIONS = 100  # steps of the mean on its way uphill
STILL = 1e-4  # a mean that moves less than this has arrived


@dataclass(frozen=True)
class Maps:
    """What the network says of each pixel, raw."""

    embedding: Float[Tensor, "b d *s"]
    semantic: Float[Tensor, "b _ *s"]  # logits of background and the c classes


class DiscriminativeLoss(nn.Module):
    """The method of De Brabandere et al. 2017 on any network that gives maps of the image's size."""

    max_instances: ClassVar[int | None] = None
    takes_volumes: ClassVar[bool] = True

    def __init__(
        self,
        make_network: NetworkMaker,
        *,
        n_classes: int = 1,
        spacing: Sequence[float] = (1.0, 1.0),
        dimension: int = 8,
        pull_margin: float = 0.5,
        push_margin: float = 1.5,
        norm: int = 2,
        pull_weight: float = 1.0,
        push_weight: float = 1.0,
        regularisation_weight: float = 0.001,
        semantic_weight: float = 1.0,
        class_weights: Sequence[float] | None = None,
        coordinates: str = "none",
        coordinate_scale: float = 8.0,
        reach: float | None = None,
        foreground_threshold: float = 0.5,
        bandwidth: float | None = None,
        min_size: int = 0,
        connected: bool = False,
    ) -> None:
        """Build the network and keep the numbers of the paper.

        Args:
            make_network: gives a network for a list of output channels, one entry for each decoder, and, if there are
                any, a number of `extra_channels` of the image.
            n_classes: classes, besides background.
            spacing: length of a step along each axis: three numbers for volumes, along (plane, row, column).
            dimension: of the embedding; the paper has 8 for Cityscapes and 16 for leaves.
            pull_margin: delta_v: a pixel no further than this from its object's mean is not pulled.
            push_margin: delta_d: means at least twice this far apart are not pushed.
            norm: 1 or 2, for all distances in the loss.
            pull_weight: alpha, of the variance term.
            push_weight: beta, of the distance term.
            regularisation_weight: gamma, of the term that keeps means near the origin.
            semantic_weight: of the cross entropy of the classes.
            class_weights: of background and each class in it; all 1 by default.
            coordinates: "input": the network also sees each pixel's position, from -1 to 1 along each side of the
                image, as in the paper's work on leaves; such a model cannot be used in tiles. "output": the position is
                added to the first dimensions of the embedding, one for each axis, so that objects far apart are apart
                from the start and the network says where each pixel's object is, as in spatial embeddings; not in the
                paper.
            coordinate_scale: pixels in a unit of the embedding, with "output"; in a volume, steps along columns.
            reach: push apart only objects that lie near each other: see `Objects.near`. None, as in the paper, is all.
                If there are more objects than the embedding can keep apart, a reach of 2 to 3 together with
                `connected` spares it from separating objects that never meet.
            foreground_threshold: probability from which a pixel belongs to an object.
            bandwidth: radius of mean shift, at most twice `push_margin`; by default `push_margin` itself, halfway to
                the nearest other mean. The paper names `pull_margin`, its published code uses 1.5.
            min_size: objects have at least this many pixels.
            connected: whether objects are of one piece. If so, each connected region of the foreground is grouped
                on its own, groups are split into connected parts, and the pixels of groups that are too small go to
                the nearest object of their region.

        Raises:
            InputError: if a number is out of its range.
        """
        super().__init__()
        check_choice("coordinates", coordinates, COORDINATES)
        check_number("coordinate_scale", coordinate_scale, 1e-3, 1e6)
        n_axes = len(spacing)
        if coordinates == "output" and dimension < n_axes:
            needed = {2: "two", 3: "three"}[n_axes]
            raise InputError(f"dimension is {dimension}; positions in the embedding need {needed} dimensions.")
        _check(dimension, pull_margin, push_margin, norm, reach)
        if class_weights is not None and len(class_weights) != n_classes + 1:
            raise InputError(
                f"class_weights has {len(class_weights)} numbers; give {n_classes + 1}: the "
                "background's, then one for each class."
            )
        for weight in class_weights or ():
            check_number("class_weights", weight, 0)
        self.n_classes, self.dimension, self.norm = n_classes, dimension, norm
        self.pull_margin, self.push_margin, self.reach = pull_margin, push_margin, reach
        self.coordinates, self.connected = coordinates, connected
        self.coordinate_scale = coordinate_scale
        self.spacing = tuple(spacing)
        self.tileable = coordinates != "input"
        self.weights = checked_weights(
            pull=pull_weight, push=push_weight, regularisation=regularisation_weight, semantic=semantic_weight
        )
        self.thresholds: dict[str, float] = {
            "foreground_threshold": foreground_threshold,
            "bandwidth": float(push_margin if bandwidth is None else bandwidth),
            "min_size": min_size,
        }
        check_thresholds(self.thresholds, self.threshold_ranges)
        weights = torch.ones(n_classes + 1) if class_weights is None else torch.tensor(class_weights)
        self.class_weights: Tensor
        self.register_buffer("class_weights", weights.float(), persistent=False)
        outputs = [dimension, n_classes + 1]
        self.network = make_network(outputs, n_axes) if coordinates == "input" else make_network(outputs)

    @property
    def threshold_ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each threshold; sizes are in pixels, bandwidths are lengths in the embedding."""
        bandwidth = 0.01 * self.push_margin, 2.0 * self.push_margin
        return {"foreground_threshold": (0.0, 1.0), "bandwidth": bandwidth, "min_size": (0, 1 << 30)}

    @property
    def threshold_candidates(self) -> dict[str, tuple[float, ...]]:
        """The values that validation tries for each threshold."""
        return {
            "foreground_threshold": (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7),
            "bandwidth": tuple(self.push_margin * share / 6 for share in range(2, 9)),
            "min_size": (0, 8, 16, 24, 32, 48, 64, 96, 128),
        }

    @staticmethod
    def suggestions(statistics: ObjectStatistics) -> Suggestions:
        """Keys of a recipe that suit such objects, which are assumed to be of one piece."""
        options = {"coordinates": "output", "coordinate_scale": round(0.4 * statistics.typical_size, 1)}
        return {"model": {"options": {**options, "connected": True, "min_size": statistics.min_object // 4}}}

    # ---------------------------------------------------------------- the network's answer

    def forward(self, images: Float[Tensor, "b i *s"]) -> Maps:
        """Raw maps of a batch of normalised images."""
        if self.coordinates == "input":
            images = torch.cat([images, positions(images)], 1)
        return Maps(*self.network(images).split([self.dimension, self.n_classes + 1], 1))

    def decode(self, maps: Maps) -> tuple[Float[Tensor, "b d *s"], Float[Tensor, "b _ *s"]]:
        """Embedding, and probability of background and each class, of each pixel."""
        return self._placed(maps.embedding), maps.semantic.softmax(1)

    def _placed(self, embedding: Float[Tensor, "b d *s"]) -> Float[Tensor, "b d *s"]:
        """The embedding with each pixel's position added, if it is to have one."""
        if self.coordinates != "output":
            return embedding
        position = places(embedding, self.spacing) / self.coordinate_scale
        others = position.new_zeros(self.dimension - len(position), *position.shape[1:])
        return embedding + torch.cat([position, others])

    # ---------------------------------------------------------------- loss

    def loss(self, maps: Maps, truth: Truth) -> dict[str, Float[Tensor, ""]]:
        """The paper's `pull`, `push` and `regularisation`, and `semantic`, the cross entropy of the classes.

        The objects of each class are treated separately; the terms of the classes in an image are added.
        """
        with torch.autocast(maps.embedding.device.type, enabled=False):
            embedding, semantic = (x if x.dtype == torch.float64 else x.float() for x in vars(maps).values())
            objects = Objects.of(truth)
            placed = self._placed(embedding)
            means = objects.mean(placed)
            weight = self._weight_of_objects(objects).to(embedding.dtype)
            distance = self._norm(objects.at_pixels(placed) - means[objects.of_pixel])
            pull = objects.mean_values(F.relu(distance - self.pull_margin).square())
            return {
                "pull": (weight * pull).sum() + 0 * embedding.sum(),
                "push": self._push(means, objects),
                "regularisation": (weight * self._norm(objects.mean(embedding))).sum(),
                "semantic": cross_entropy(semantic, truth.class_map(), self.class_weights.to(semantic.dtype)),
            }

    def _norm(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        length: Float[Tensor, " n"] = torch.linalg.vector_norm(x, self.norm, 1)
        return length

    def _crowd(self, objects: Objects) -> Int[Tensor, " k"]:
        """One number for each object's image and class together."""
        return objects.image * (self.n_classes + 1) + objects.classes

    def _weight_of_objects(self, objects: Objects) -> Float[Tensor, " k"]:
        """1 / (objects of the same image and class), over the number of images."""
        crowd = self._crowd(objects)
        counts = torch.bincount(crowd, minlength=1) if len(crowd) else crowd
        return 1 / (counts[crowd] * len(objects.owner)).float()

    def _push(self, means: Float[Tensor, "k d"], objects: Objects) -> Float[Tensor, ""]:
        """Squared hinge of the distance between means, over the pairs of each image and class."""
        b = len(objects.owner)
        total = means.sum() * 0
        for image in range(b):
            own, near = objects.near(image, self.reach)
            for c in torch.unique(objects.classes[own]):
                of_class = objects.classes[own] == c
                first, second = torch.nonzero(near.triu() & of_class & of_class[:, None], as_tuple=True)
                if len(first):
                    distance = self._norm(means[own[first]] - means[own[second]])
                    total = total + F.relu(2 * self.push_margin - distance).square().mean() / b
        return total

    # ---------------------------------------------------------------- grouping

    @torch.no_grad()
    def group(self, maps: Maps) -> list[Instances]:
        """Objects of each image by mean shift, class by class; the score is the mean probability of the class."""
        return [
            self._by_mean_shift(embedding, probability, self._classes(probability))
            for embedding, probability in zip(*self._decoded(maps), strict=True)
        ]

    def _decoded(self, maps: Maps) -> tuple[Float32[np.ndarray, "b d *s"], Float32[np.ndarray, "b _ *s"]]:
        embedding, probability = self.decode(Maps(*(x.float().cpu() for x in vars(maps).values())))
        return embedding.numpy(), probability.numpy()

    def _classes(self, probability: Float32[np.ndarray, "_ *s"]) -> Int[np.ndarray, "*s"]:
        return likeliest_classes(probability, self.thresholds["foreground_threshold"])

    def _by_mean_shift(
        self,
        embedding: Float32[np.ndarray, "d *s"],
        probability: Float32[np.ndarray, "_ *s"],
        classes: Int[np.ndarray, "*s"],
    ) -> Instances:
        """Objects of one image; mean shift begins where the class is most certain."""
        min_size = int(self.thresholds["min_size"])

        def group(priority: Float32[np.ndarray, "*s"], mask: Bool[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
            region = parts.regions(mask) if self.connected else mask.astype(np.int32)
            labels = np.zeros(mask.shape, np.int32)
            labels[mask] = mean_shift(
                np.ascontiguousarray(embedding[:, mask]),
                priority[mask],
                region[mask],
                bandwidth=float(self.thresholds["bandwidth"]),
                min_size=min_size,
            )
            return parts.of_one_piece(labels, region, min_size) if self.connected else labels

        return group_by_class(probability, classes, group)

    @torch.no_grad()
    def group_seeded(
        self, maps: Maps, truth: Truth, *, semantics: str = "predicted", centres: str = "true"
    ) -> list[Instances]:
        """Objects found with parts of the truth: the paper's study of its components.

        Args:
            maps: of a batch.
            truth: of the same batch.
            semantics: "predicted", the network's classes, or "true" ones.
            centres: "true": an object is all pixels of its class within the bandwidth of the mean embedding over the
                true object, with score 1, and objects may overlap; or "mean-shift".

        Source: De Brabandere et al. 2017, the table of components.
        """
        check_choice("semantics", semantics, ("predicted", "true"))
        check_choice("centres", centres, ("true", "mean-shift"))
        objects = Objects.of(truth)
        means = objects.mean(self._placed(maps.embedding.float()))
        true_classes = truth.class_map().clamp(min=0).cpu().numpy()
        results = []
        for i, (embedding, probability) in enumerate(zip(*self._decoded(maps), strict=True)):
            classes = true_classes[i] if semantics == "true" else self._classes(probability)
            if centres == "mean-shift":
                results.append(self._by_mean_shift(embedding, probability, classes))
                continue
            own = torch.nonzero(objects.image == i)[:, 0]
            masks = []
            for k in own:
                distance = np.linalg.norm(embedding - means[k].cpu().numpy().reshape(-1, *[1] * classes.ndim), axis=0)
                masks.append((distance < self.thresholds["bandwidth"]) & (classes == int(objects.classes[k])))
            of_own = objects.classes[own].to(torch.int32).cpu().numpy()
            results.append(Instances.from_masks(masks, of_own, np.ones(len(own), np.float32), classes.shape))
        return results


# -------------------------------------------------------------------- the definition, plain


def group_plain(
    embedding: Float[Tensor, "d n"],
    priority: Float[Tensor, " n"],
    region: Int32[Tensor, " n"],
    *,
    bandwidth: float,
    min_size: int,
) -> Int32[Tensor, " n"]:
    """Mean shift as in the paper: the definition that the fast form equals.

    Args:
        embedding: of the foreground pixels.
        priority: the next search starts at the free pixel with the highest priority, the first one if several tie.
        region: pixels of different regions never meet.
        bandwidth: radius of the ball whose pixels give the next mean and, finally, the object.
        min_size: a group of fewer pixels is dropped.

    Returns:
        0 for dropped pixels, or the object's number, from 1 in the order in which objects are found.
    """
    labels = torch.zeros(len(priority), dtype=torch.int32)
    found = 0
    for r in torch.unique(region):
        free = region == r
        while free.any():
            places = torch.nonzero(free)[:, 0]
            seed = places[priority[places].argmax()]
            mean = _climb(embedding, free, embedding[:, seed], bandwidth)
            claim = free & (squared_distance(embedding, mean) < bandwidth**2)
            claim[seed] = True  # the loop must end, even if an embedding is not a number
            if claim.sum() >= min_size:
                found += 1
                labels[claim] = found
            free &= ~claim
    return labels


def _climb(
    embedding: Float[Tensor, "d n"], free: Bool[Tensor, " n"], mean: Float[Tensor, " d"], bandwidth: float
) -> Float[Tensor, " d"]:
    """The point at which the mean of the free pixels around comes to rest."""
    for _ in range(MAX_ITERATIONS):
        near = free & (squared_distance(embedding, mean) < bandwidth**2)
        if not near.any():
            break
        before, mean = mean, embedding[:, near].double().mean(1).to(embedding.dtype)
        if squared_distance(mean[:, None], before) < STILL**2:
            break
    return mean


def squared_distance(embedding: Float[Tensor, "d n"], mean: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """Squared Euclidean distance of each embedding to a point, summed dimension by dimension."""
    total = torch.zeros_like(embedding[0])
    for values, m in zip(embedding, mean, strict=True):
        total = total + (values - m) * (values - m)
    return total


def _check(dimension: int, pull_margin: float, push_margin: float, norm: int, reach: float | None) -> None:
    if not 1 <= dimension <= 256:
        raise InputError(f"dimension is {dimension}; the embedding can have 1 to 256 dimensions.")
    if norm not in (1, 2):
        raise InputError(f"norm is {norm}; distances are in the norm 1 or 2.")
    if not 0 <= pull_margin < push_margin or math.isinf(push_margin):
        raise InputError(
            f"pull_margin is {pull_margin} and push_margin {push_margin}; the first must be at least 0 and below the "
            "second, or objects could not be told apart."
        )
    if reach is not None:
        check_reach(reach)
