"""Recurrent pixel embedding: pixels are points on a sphere, and mean shift is a network that draws them together.

The network gives each pixel a direction. In training, directions within an object turn towards each other, and those of
different objects turn away until their cosine falls below a margin. Mean shift moves each direction towards its
neighbours; its loops are layers without weights of their own, and the loss is taken after each of them, so that the
embedding learns to be easy to group. Finally, pixels whose directions meet are one object.

Source: Kong and Fowlkes, "Recurrent Pixel Embedding for Instance Grouping", CVPR 2018. The published code gives no
grouping after the loops; the one here is our own.
Shapes: `b` images, `c` classes, `d` dimensions of the sphere's space, `e` channels of the
network's answer, `a` axes, `s` the lengths of an image or volume along them, `n` pixels, `m` anchors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int32
from scipy.special import betainc
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attractor.errors import InputError, check_choice, check_number, check_thresholds
from attractor.instances import Instances
from attractor.kernels import parts
from attractor.kernels.meeting_directions import STILL, evenly_spread, meeting_directions
from attractor.losses import cross_entropy
from attractor.methods.contract import NetworkMaker, Suggestions, check_reach, checked_weights
from attractor.networks.positions import in_columns, places
from attractor.semantics import group_then_classify, likeliest_classes
from attractor.statistics import ObjectStatistics
from attractor.truth import Objects, Truth

EPSILON = 1e-5  # added to a vector's length before dividing by it
CHUNK = 8192  # points that are shifted at a time: the intermediate results fit into the CPU's cache


@dataclass(frozen=True)
class Maps:
    """What the network says of each pixel, raw."""

    embedding: Float[Tensor, "b e *s"]  # of any length; only its direction counts
    semantic: Float[Tensor, "b _ *s"]  # logits of background and the c classes


class RecurrentPixelEmbedding(nn.Module):
    """The method of Kong and Fowlkes 2018 on any network that gives maps of the image's size."""

    max_instances: ClassVar[int | None] = None
    tileable: ClassVar[bool] = True
    takes_volumes: ClassVar[bool] = True
    # What a threshold can be, and what validation tries; sizes are pixels.
    threshold_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "foreground_threshold": (0.0, 1.0),
        "similarity_threshold": (-1.0, 0.999),
        "min_size": (0, 1 << 30),
    }
    threshold_candidates: ClassVar[dict[str, tuple[float, ...]]] = {
        "foreground_threshold": (0.4, 0.45, 0.5, 0.55, 0.6),
        "similarity_threshold": (0.6, 0.7, 0.8, 0.9, 0.95),
        "min_size": (0, 16, 32, 64, 128),
    }

    def __init__(
        self,
        make_network: NetworkMaker,
        *,
        n_classes: int = 1,
        spacing: Sequence[float] = (1.0, 1.0),
        dimension: int = 64,
        margin: float = 0.5,
        groups: int = 20,
        pair_loss: str = "squared",
        negative_weight: float = 5.0,
        pixels: int = 1000,
        sampling: str = "uniform",
        reach: float | None = None,
        coordinates: str = "none",
        coordinate_period: float = 64.0,
        loops: int = 1,
        loops_from: int = 0,
        bandwidth: float | None = None,
        learn_bandwidth: bool = False,
        step: float = 1.0,
        embedding_weight: float = 1.0,
        semantic_weight: float = 1.0,
        grouping_loops: int = 10,
        anchors: int = 256,
        foreground_threshold: float = 0.5,
        similarity_threshold: float = 0.9,
        min_size: int = 16,
        connected: bool = False,
    ) -> None:
        """Build the network and keep the numbers of the paper.

        Args:
            make_network: gives a network for a list of output channels, one entry for each decoder.
            n_classes: classes, besides background.
            spacing: length of a step along each axis: three numbers for volumes, along (plane, row, column).
            dimension: of the space that the sphere lies in; 64 in the paper.
            margin: alpha: calibrated similarity, (1 + cosine) / 2, that pixels of different objects may have; 0.5 in
                the paper, which is a right angle.
            groups: how many objects, counting the background as one, must be kept apart; see `most_groups`.
            pair_loss: "squared", the objective whose gradient trained the published models, or "linear", as the paper
                writes it. With the linear one, an object's pixels can come to rest at right angles to each other,
                because no pair of pixels from different objects is wrong any more.
            negative_weight: lambda, of pairs from different objects; 5 in the published training.
            pixels: sampled from each image for the loss; all their pairs count.
            sampling: "uniform", or "balanced": equally many pixels of each object and of the background.
            reach: keep apart only objects that lie near each other: see `Objects.near`. None, as in the paper, is all.
            coordinates: "phase": a channel of the network for each axis says where a pixel's object is, as in spatial
                embeddings, and two dimensions of the sphere for each axis hold that place as cosine and sine; not in
                the paper. "none" is the paper's.
            coordinate_period: pixels after which such a place repeats, about three objects wide; `reach` and
                `connected` make up for the ambiguity. In a volume, steps along columns.
            loops: of mean shift in training; the loss is taken before the first and after each.
            loops_from: epoch of training, counted from 0, from which they take part. Before objects are apart, mean
                shift only draws them closer and nothing is learned, so a few epochs without it come first.
            bandwidth: delta of mean shift, whose concentration is kappa = 1 / delta^2. None couples it to the margin,
                kappa = 3 / (1 - alpha); the published code has 0.1 and 0.2.
            learn_bandwidth: whether the bandwidth is learned, starting from that value.
            step: eta: how far a loop moves a pixel to its mean, above 0 and at most 1.
            embedding_weight: of the pair loss, summed over the loops.
            semantic_weight: of the cross entropy of the classes.
            grouping_loops: the most loops of mean shift before grouping; it ends earlier if all pixels are at rest.
            anchors: number of evenly spread pixels of a region that all its pixels are drawn to in grouping, so that
                not every pair of pixels has to be looked at.
            foreground_threshold: probability from which a pixel belongs to an object.
            similarity_threshold: cosine from which pixels belong to one object, after mean shift.
            min_size: objects have at least this many pixels of the image.
            connected: whether objects are of one piece. If so, each connected region of the foreground is grouped
                on its own, groups are split into connected parts, and the pixels of groups that are too small go to
                the nearest object of their region.

        Raises:
            InputError: if a number is out of its range, or margin and dimension cannot hold `groups` apart.
        """
        super().__init__()
        check_choice("pair_loss", pair_loss, ("linear", "squared"))
        check_choice("sampling", sampling, ("uniform", "balanced"))
        check_number("negative_weight", negative_weight, 0)
        _check_place(coordinates, dimension, coordinate_period, len(spacing))
        _check_numbers(bandwidth, step, pixels, anchors, loops, grouping_loops, reach)
        _check_packing(margin, dimension, groups)
        self.n_classes, self.dimension, self.margin = n_classes, dimension, margin
        self.pair_loss, self.negative_weight = pair_loss, negative_weight
        self.pixels, self.sampling, self.reach = pixels, sampling, reach
        self.coordinates, self.coordinate_period = coordinates, coordinate_period
        self.spacing = tuple(spacing)
        self.channels = dimension - len(spacing) if coordinates == "phase" else dimension  # of the network's answer
        self.loops, self.loops_from, self.step = loops, loops_from, step
        self.loops_now = loops  # see at_epoch
        self.grouping_loops, self.anchors, self.connected = grouping_loops, anchors, connected
        kappa = 3 / (1 - margin) if bandwidth is None else 1 / bandwidth**2
        log_kappa = torch.tensor(math.log(kappa), dtype=torch.float32)
        if learn_bandwidth:
            self.log_kappa: Tensor = nn.Parameter(log_kappa)
        else:
            self.register_buffer("log_kappa", log_kappa, persistent=False)
        self.weights = checked_weights(embedding=embedding_weight, semantic=semantic_weight)
        self.thresholds: dict[str, float] = {
            "foreground_threshold": foreground_threshold,
            "similarity_threshold": similarity_threshold,
            "min_size": min_size,
        }
        check_thresholds(self.thresholds, self.threshold_ranges)
        self.network = make_network([self.channels, n_classes + 1])

    def at_epoch(self, epoch: int) -> None:
        """Say which epoch of training it is, counted from 0."""
        self.loops_now = self.loops if epoch >= self.loops_from else 0

    @staticmethod
    def suggestions(statistics: ObjectStatistics) -> Suggestions:
        """Keys of a recipe that suit such objects, which are assumed to be of one piece.

        The dimension and the number of sampled pixels are smaller than in the paper, for machines without a GPU.
        """
        options = {
            "dimension": 16,
            "pixels": 600,
            "sampling": "balanced",
            "reach": 3.0,
            "connected": True,
            "loops_from": 8,
            "coordinates": "phase",
            "coordinate_period": round(3.0 * statistics.typical_size, 1),
        }
        return {"model": {"options": {**options, "min_size": statistics.min_object // 4}}}

    # ---------------------------------------------------------------- the network's answer

    def forward(self, images: Float[Tensor, "b i *s"]) -> Maps:
        """Raw maps of a batch of normalised images."""
        return Maps(*self.network(images).split([self.channels, self.n_classes + 1], 1))

    def decode(self, maps: Maps) -> tuple[Float[Tensor, "b d *s"], Float[Tensor, "b _ *s"]]:
        """Unit embedding, and probability of background and each class, of each pixel."""
        return unit(self._placed(maps.embedding, places(maps.embedding, self.spacing)), 1), maps.semantic.softmax(1)

    def _placed(self, embedding: Float[Tensor, "b e *s"], position: Float[Tensor, "a *s"]) -> Float[Tensor, "b d *s"]:
        """The embedding with the place that each pixel points at, if it is to have one."""
        if self.coordinates == "none":
            return embedding
        n_axes = len(self.spacing)
        phases = 2 * math.pi * (embedding[:, :n_axes] + position / self.coordinate_period)
        return torch.cat([phases.cos(), phases.sin(), embedding[:, n_axes:]], 1)

    # ---------------------------------------------------------------- loss

    def loss(self, maps: Maps, truth: Truth) -> dict[str, Float[Tensor, ""]]:
        """`embedding`, the pair loss summed over the loops, and `semantic`, the cross entropy of the classes.

        Background is one more group. The pixels are drawn from torch's own random numbers.
        """
        with torch.autocast(maps.embedding.device.type, enabled=False):
            embedding, semantic = (x if x.dtype == torch.float64 else x.float() for x in vars(maps).values())
            objects = Objects.of(truth)
            x = unit(self._placed(embedding, places(embedding, self.spacing)), 1).flatten(2)
            total = embedding.sum() * 0
            for i, (points, owner) in enumerate(zip(x, objects.owner.flatten(1), strict=True)):
                chosen = self._sample(owner)
                if len(chosen):
                    own, near = objects.near(i, self.reach)
                    group = (owner[chosen] - (own[0] if len(own) else 0)).clamp(min=0)  # 0 is the background
                    total = total + self._loss_of_image(points[:, chosen].T, group, near)
            weights = semantic.new_ones(self.n_classes + 1)
            return {"embedding": total / len(x), "semantic": cross_entropy(semantic, truth.class_map(), weights)}

    def _sample(self, owner: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        """Some of the pixels that count."""
        valid = torch.nonzero(owner >= 0)[:, 0]
        if len(valid) <= self.pixels:
            return valid
        if self.sampling == "uniform":
            return valid[torch.randperm(len(valid), device=owner.device)[: self.pixels]]
        group = torch.unique(owner[valid], return_inverse=True)[1]
        # the highest of these keys are a sample without replacement in which each group has the same chance
        keys = torch.rand(len(valid), device=owner.device).log() * torch.bincount(group)[group]
        return valid[keys.topk(self.pixels).indices]

    def _loss_of_image(
        self, x: Float[Tensor, "n d"], group: Int[Tensor, " n"], near: Bool[Tensor, "k k"]
    ) -> Float[Tensor, ""]:
        """Pair loss before the first loop and after each.

        The results of a loop are not kept but computed again in the backward pass, so that memory does not grow with
        the number of loops.
        """
        weight = pair_weights(group).to(x.dtype)
        same = group[:, None] == group
        if self.reach is not None:  # the background lies near all objects
            groups = F.pad(near, (1, 0, 1, 0), value=True)
            weight = weight * (same | groups[group][:, group])
        total: Float[Tensor, ""] = checkpoint(self._pair_loss, x, same, weight, use_reentrant=False)
        for _ in range(self.loops_now):
            x, loss = checkpoint(self._loop, x, same, weight, use_reentrant=False)
            total = total + loss
        return total

    def _loop(
        self, x: Float[Tensor, "n d"], same: Bool[Tensor, "n n"], weight: Float[Tensor, "n n"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, ""]]:
        """Points after one loop, and their pair loss."""
        x = shift(x, x, self.log_kappa.exp().to(x.dtype), self.step)
        return x, self._pair_loss(x, same, weight)

    def _pair_loss(
        self, x: Float[Tensor, "n d"], same: Bool[Tensor, "n n"], weight: Float[Tensor, "n n"]
    ) -> Float[Tensor, ""]:
        similar, different = pair_loss(x, same, weight, margin=self.margin, squared=self.pair_loss == "squared")
        return similar + self.negative_weight * different

    # ---------------------------------------------------------------- grouping

    @torch.no_grad()
    def group(self, maps: Maps) -> list[Instances]:
        """Objects of each image, class by class; the score is the mean probability of the class."""
        return [
            self._group_image(embedding, probability, float(self.thresholds["similarity_threshold"]), self.kappa)
            for embedding, probability in _images(maps)
        ]

    def learned_numbers(self) -> dict[str, float]:
        """The concentration of mean shift, which may be learned."""
        return {"kappa": self.kappa}

    @property
    def kappa(self) -> float:
        """Concentration of mean shift."""
        return float(self.log_kappa.detach().exp())

    def _group_image(
        self,
        embedding: Float[Tensor, "e *s"],
        probability: Float32[np.ndarray, "_ *s"],
        similarity: float,
        kappa: float,
    ) -> Instances:
        """Objects of one image, from the raw embedding, by a cosine and a concentration."""
        min_size = int(self.thresholds["min_size"])

        def group(_: Float32[np.ndarray, "*s"], mask: Bool[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
            region = parts.regions(mask) if self.connected else mask.astype(np.int32)
            pixels = np.flatnonzero(mask)
            points = self._points(embedding, torch.from_numpy(pixels)).numpy()
            finite = np.isfinite(points).all(0)
            labels = np.zeros(mask.shape, np.int32)
            labels.ravel()[pixels[finite]] = meeting_directions(
                points[:, finite],
                region.ravel()[pixels[finite]],
                kappa=kappa,
                step=self.step,
                loops=self.grouping_loops,
                most_anchors=self.anchors,
                similarity=similarity,
                min_size=min_size,
            )
            return parts.of_one_piece(labels, region, min_size) if self.connected else labels

        classes = likeliest_classes(probability, self.thresholds["foreground_threshold"])
        return group_then_classify(probability, classes, group)

    def _points(self, embedding: Float[Tensor, "e *s"], pixels: Int[Tensor, " n"]) -> Float[Tensor, "d n"]:
        """Unit embedding of some pixels, by their places in row-major order."""
        place = torch.stack(torch.unravel_index(pixels, embedding.shape[1:])).float()
        in_a_row = embedding.flatten(1)[:, pixels].float()[None]
        return unit(self._placed(in_a_row, in_columns(place, self.spacing))[0], 0)

    @torch.no_grad()
    def propose(self, maps: Maps, n: int) -> list[Instances]:
        """The best `n` proposals of each image, best first: objects of several groupings, which overlap.

        Groupings differ in concentration (halved, as it is, doubled) and in the cosine from which pixels are of one
        object. The score is the mean probability of the class.
        """
        return [self._proposals(embedding, probability, n) for embedding, probability in _images(maps)]

    def _proposals(
        self, embedding: Float[Tensor, "e *s"], probability: Float32[np.ndarray, "_ *s"], n: int
    ) -> Instances:
        shape = probability.shape[1:]
        found_as: dict[bytes, tuple[float, int]] = {}  # packed mask to its score and class
        for similarity in (self.thresholds["similarity_threshold"], 0.7, 0.95):
            for factor in (1.0, 0.5, 2.0):
                found = self._group_image(embedding, probability, float(similarity), factor * self.kappa)
                for k, (score, number) in enumerate(zip(found.scores, found.classes, strict=True), 1):
                    found_as.setdefault(np.packbits(found.mask(k)).tobytes(), (float(score), int(number)))
        best = sorted(found_as.items(), key=lambda proposal: -proposal[1][0])[:n]
        unpacked = (np.unpackbits(np.frombuffer(mask, np.uint8), count=math.prod(shape)) for mask, _ in best)
        return Instances.from_masks(
            [mask.reshape(shape).astype(bool) for mask in unpacked],
            np.array([number for _, (_, number) in best], np.int32),
            np.array([score for _, (score, _) in best], np.float32),
            shape,
        )


# -------------------------------------------------------------------- the sphere


def unit(x: Float[Tensor, "*shape"], axis: int) -> Float[Tensor, "*shape"]:
    """Vectors along an axis divided by their length, 0 where that is 0."""
    length: Float[Tensor, "*_"] = torch.linalg.vector_norm(x, dim=axis, keepdim=True)
    return x / (length + EPSILON)


def pair_weights(group: Int[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """Weight of each ordered pair of pixels: for any two groups the pairs add up to the same, and all pairs to 1.

    Args:
        group: of each pixel, any integers.
    """
    _, number, counts = torch.unique(group, return_inverse=True, return_counts=True)
    exact = torch.float32 if group.device.type == "mps" else torch.float64  # MPS has no double
    share: Float[Tensor, " n"] = 1 / (counts[number].to(exact) * len(counts))
    return share[:, None] * share


def pair_loss(
    x: Float[Tensor, "n d"],
    same: Bool[Tensor, "n n"],
    weight: Float[Tensor, "n n"],
    *,
    margin: float,
    squared: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Loss of pairs within a group that are not equal, and of pairs across groups that are more alike than the margin.

    Args:
        x: unit vectors.
        same: whether a pair is of one group.
        weight: of each pair.
        margin: calibrated similarity, (1 + cosine) / 2, that pairs of two groups may have.
        squared: 1 - s^2 and the square of the hinge, whose gradient the published code follows, in place of 1 - s
            and the hinge.
    """
    s = (1 + x @ x.T) / 2
    like, unlike = (1 - s * s, F.relu(s - margin).square()) if squared else (1 - s, F.relu(s - margin))
    return (weight * like)[same].sum(), (weight * unlike)[~same].sum()


def shift(
    x: Float[Tensor, "n d"],
    anchors: Float[Tensor, "m d"],
    kappa: Float[Tensor, ""],
    step: float,
    itself: Float[Tensor, " n"] | float = 0.0,
) -> Float[Tensor, "n d"]:
    """One loop of mean shift on the sphere: each point moves towards the mean of the anchors around it.

    An anchor has the weight exp(kappa (cosine - 1)); a point that is not an anchor itself has the weight `itself`.
    """
    own = torch.as_tensor(itself, dtype=x.dtype, device=x.device).expand(len(x))[:, None]
    kernel = torch.exp(kappa * (x @ anchors.T - 1))
    mean = (kernel @ anchors + own * x) / (kernel.sum(1, keepdim=True) + own)
    return F.normalize((1 - step) * x + step * mean, dim=1)


def group_plain(
    points: Float[Tensor, "d n"],
    region: Int32[Tensor, " n"],
    *,
    kappa: float,
    step: float,
    loops: int,
    most_anchors: int,
    similarity: float,
    min_size: int,
) -> Int32[Tensor, " n"]:
    """Groups of points that meet after mean shift: the definition that the fast form equals.

    Args:
        points: unit vectors, of the foreground pixels.
        region: points of different regions never meet.
        kappa: concentration of mean shift.
        step: how far a loop moves a point to its mean.
        loops: the most loops; they end earlier if all points of a region are at rest.
        most_anchors: in a region.
        similarity: cosine above which points are of one group.
        min_size: a group of fewer points is dropped.

    Returns:
        0 for dropped points, or the group's number, from 1, region by region; numbers may be missing.
    """
    labels = torch.zeros(len(region), dtype=torch.int32)
    n_before = 0
    for r in torch.unique(region):
        x = points[:, region == r].T
        found = points_that_meet(*shifted(x, kappa, step, loops, most_anchors), similarity)
        found = torch.where(torch.bincount(found)[found] >= min_size, found, 0)
        labels[region == r] = torch.where(found > 0, found + n_before, 0)
        n_before += int(found.max())
    return labels


def shifted(
    x: Float[Tensor, "n d"], kappa: float, step: float, loops: int, most_anchors: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """Points after mean shift, and how densely the anchors lie around each.

    The anchors are every nth point, and are shifted like the others. A point that is not an anchor counts in its own
    mean with the weight that one point has against an anchor, 1/n, so that an object without an anchor is not lost.
    """
    chosen = evenly_spread(len(x), most_anchors)
    itself = torch.full((len(x),), len(chosen) / max(len(x), 1), dtype=x.dtype)
    itself[chosen] = 0
    concentration = torch.tensor(kappa, dtype=x.dtype)
    for _ in range(loops):
        before, anchors = x, x[chosen]
        pieces = zip(x.split(CHUNK), itself.split(CHUNK), strict=True)
        x = torch.cat([shift(piece, anchors, concentration, step, own) for piece, own in pieces])
        if (x - before).square().sum(1).max() < STILL**2:
            break
    anchors = x[chosen]
    density = [torch.exp(concentration * (piece @ anchors.T - 1)).sum(1) for piece in x.split(CHUNK)]
    return x, torch.cat(density) + itself


def points_that_meet(x: Float[Tensor, "n d"], density: Float[Tensor, " n"], similarity: float) -> Int32[Tensor, " n"]:
    """Groups of points that meet.

    The densest free point takes all free points around it, and so on; finally, each point goes to the group whose
    members it is most similar to on average.

    Args:
        x: unit vectors.
        density: the order in which points may start a group.
        similarity: cosine above which a point is taken.

    Returns:
        Number of each point's group, from 1; a group that loses all its points to others leaves a gap.
    """
    free = torch.ones(len(x), dtype=torch.bool)
    order = torch.argsort(density, descending=True, stable=True)  # of the free points
    means = []
    while len(order):
        members = free & (x @ x[order[0]] > similarity)
        members[order[0]] = True
        means.append(x[members].mean(0))
        free &= ~members
        order = order[free[order]]
    centres = torch.stack(means).T
    return torch.cat([(piece @ centres).argmax(1) for piece in x.split(CHUNK)]).to(torch.int32) + 1


def most_groups(margin: float, dimension: int) -> float:
    """An upper bound on how many groups fit on the sphere if no two are more alike than the margin.

    Below a margin of 0.5 (angles wider than a right angle) the bound is that of a simplex, at 0.5 that of the ends of
    the axes; both are reached. Above, it is the number of disjoint caps that the sphere's area could hold, which is
    not reached.

    Args:
        margin: calibrated similarity, (1 + cosine) / 2.
        dimension: of the space.
    """
    if margin < 0.5:
        spread = 1 - 2 * Fraction(str(margin))  # exactly: at .475 it is 21 groups, not 20
        return float(min(dimension + 1, math.floor(1 + 1 / spread)))
    if margin == 0.5:
        return 2.0 * dimension
    half_angle = math.acos(2 * margin - 1) / 2
    cap = 0.5 * float(betainc((dimension - 1) / 2, 0.5, math.sin(half_angle) ** 2))
    return float(math.floor(1 / cap + 1e-9)) if cap else math.inf


def _images(maps: Maps) -> Iterator[tuple[Float[Tensor, "e *s"], Float32[np.ndarray, "_ *s"]]]:
    """Raw embedding, and probability of background and each class, of each image."""
    for embedding, semantic in zip(maps.embedding.cpu(), maps.semantic.float().cpu(), strict=True):
        yield embedding, semantic.softmax(0).numpy()


def _check_place(coordinates: str, dimension: int, period: float, n_axes: int) -> None:
    check_choice("coordinates", coordinates, ("none", "phase"))
    check_number("coordinate_period", period, 1, 1e6)
    if coordinates == "phase" and dimension < 2 * n_axes:
        needed = {2: "four", 3: "six"}[n_axes]
        raise InputError(f"dimension is {dimension}; places in the embedding need {needed} dimensions.")


def _check_packing(margin: float, dimension: int, groups: int) -> None:
    if not 0 < margin < 1:
        raise InputError(f"margin is {margin}; it is a calibrated similarity, above 0 (opposite) and below 1 (equal).")
    if not 2 <= dimension <= 256:
        raise InputError(f"dimension is {dimension}; the sphere needs 2 to 256 dimensions.")
    if groups > (most := most_groups(margin, dimension)):
        raise InputError(
            f"margin = {margin} in dimension = {dimension} can hold at most {most:.0f} groups apart, and "
            f"groups = {groups} are asked for (the background is one): raise the dimension or the margin, or ask "
            "for fewer."
        )


def _check_numbers(
    bandwidth: float | None,
    step: float,
    pixels: int,
    anchors: int,
    loops: int,
    grouping_loops: int,
    reach: float | None,
) -> None:
    if bandwidth is not None and not 0.02 <= bandwidth <= 2:
        raise InputError(f"bandwidth is {bandwidth}; on the unit sphere it is a length from 0.02 to 2.")
    if not 0 < step <= 1:
        raise InputError(f"step is {step}; it is a share above 0 and at most 1.")
    for name, number, low, high in (
        ("pixels", pixels, 2, 1 << 16),  # every pair of them is looked at
        ("anchors", anchors, 1, 1 << 20),
        ("loops", loops, 0, 1000),
        ("grouping_loops", grouping_loops, 0, 1000),
    ):
        check_number(name, number, low, high)
    if reach is not None:
        check_reach(reach)
