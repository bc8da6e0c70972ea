"""Spatial embeddings: every pixel points at its object's centre, and says how far around it the object reaches.

The network gives each pixel an offset, a bandwidth and a seed score. Offset plus position is the pixel's
embedding. An object is a Gaussian in embedding space; its pixels are those with a value above one half, so the
bandwidth is learned from the IoU that it leads to. The seed score says how close a pixel's embedding is to its
object's centre; grouping starts from the best seed, claims what lies inside its margin, and repeats.

Source: Neven et al., "Instance Segmentation by Jointly Optimizing Spatial Embeddings and Clustering Bandwidth",
CVPR 2019; Lalit et al., "EmbedSeg", 2021, for the medoid and test-time augmentation; Löffler & Mikut, "EmbedTrack",
2022, for films.
Images have two axes and volumes three; nothing but their number and the step along each (`spacing`) differs. In a
volume lengths are physical: a slice that is five times as far from the next one as a pixel is five steps away.

Shapes: `b` images, `c` classes, `a` axes, `s` their lengths, `n` pixels, `k` objects. Channels of offset, embedding,
centre and concentration are in the order of the axes, (row, column) or (plane, row, column); the published models have
them the other way round. Lengths are in grid units; a step of the grid along rows and columns is a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import ClassVar, TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.augmentation import View
from attractor.errors import InputError, check_choice, check_number, check_thresholds
from attractor.instances import Instances, encode_pixels, relabel
from attractor.kernels.depths import depths
from attractor.kernels.devices import runs_triton
from attractor.kernels.lovasz_gaussians import lovasz_gaussians
from attractor.kernels.medoids import medoids
from attractor.kernels.seeded_gaussians import at, foreground, seeded_claims, seeded_points
from attractor.losses import lovasz_hinge
from attractor.methods.contract import NetworkMaker, Suggestions, checked_weights, each_changed
from attractor.methods.points import Grown, Points
from attractor.statistics import ObjectStatistics
from attractor.truth import Objects, Truth

MARGINS = ("fixed", "circular", "elliptical", "planar")
CENTRES = ("learnable", "centroid", "medoid", "approximate-medoid")
OBJECTIVES = ("gaussian", "hinge", "regression")
SEED_MEANS = ("pixels", "objects")
SEED_TARGETS = ("gaussian", "distance")
MOST_RECENTRED = 10  # a claim no longer moves after a few
# Of images with one class. Neven et al. have .9 on Cityscapes; what it gains, and that of .35: docs/results.md.
FOREGROUND_OF_IMAGES, SEED_OF_IMAGES = 0.35, 0.9
CHANCE_OF_SEEDS = 0.3  # of being foreground, from which a voxel starts an object unless validation says otherwise
MOST_WEIGHT = 100  # of foreground, by which the seed score of a voxel is still told from 1
MOST_PIXELS = 1 << 30  # upper limit of sizes and lengths
VECTORS = ("offset", "motion")  # maps of vectors


@dataclass(frozen=True)
class Maps:
    """What the network says of each pixel, raw."""

    offset: Float[Tensor, "b a *s"]  # tanh gives grid units
    sigma: Float[Tensor, "b m *s"]  # m: 0 to a; exp(10 sigma) is the concentration, 1 / (2 sigma^2)
    seed: Float[Tensor, "b c *s"]  # sigmoid gives the seed score of each class


@dataclass(frozen=True)
class MovingMaps(Maps):
    """What the network of a film says besides."""

    motion: Float[Tensor, "b a *s"]  # tanh gives grid units: to the middle of the pixel's object one frame ago


# Where objects are a small part of all voxels, f is large, and with it the scores of all that could be an object.
CANDIDATES_OF_VOLUMES: dict[str, tuple[float, ...]] = {
    "foreground_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),
    "seed_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995),
    "min_size": (0, 8, 16, 32, 64, 100, 150, 200, 300, 400, 600),
}


class Rules(TypedDict):
    """What decides in grouping and is not tuned."""

    min_foreground: int
    min_free: int
    count_seed: bool
    overwrite: bool


class SpatialEmbeddings(nn.Module):
    """The method of Neven et al. 2019 on any network that gives maps of the image's size."""

    max_instances: ClassVar[int | None] = None
    tileable: ClassVar[bool] = True
    takes_volumes: ClassVar[bool] = True
    follows: bool = False
    # In the Cell Tracking Challenge's measures a missed object costs ten times as much as a wrong one.
    film_options: ClassVar[dict[str, object]] = {"seed_threshold": 0.5}
    # What a threshold can be, and what validation tries; sizes are pixels.
    threshold_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "foreground_threshold": (0.0, 1.0),
        "seed_threshold": (0.0, 1.0),
        "min_size": (0, MOST_PIXELS),
    }
    threshold_candidates: Mapping[str, tuple[float, ...]] = {
        "foreground_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
        "seed_threshold": (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96),
        "min_size": (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128),
    }
    threshold_fallbacks: ClassVar[Mapping[str, tuple[float, ...]]] = {"seed_threshold": (0.7, 0.5)}

    def __init__(
        self,
        make_network: NetworkMaker,
        *,
        n_classes: int = 1,
        spacing: Sequence[float] = (1.0, 1.0),
        margin: str = "elliptical",
        centre: str = "learnable",
        objective: str = "gaussian",
        fixed_margin: float = 20.0,
        initial_margin: float = 5.744341856,
        grid_step: Sequence[float] = (1 / 1024, 1 / 1024),
        foreground_weight: float | Sequence[float] = 10.0,
        instance_weight: float = 1.0,
        smoothness_weight: float = 10.0,
        seed_weight: float = 1.0,
        foreground_threshold: float = 0.5,
        seed_threshold: float = 0.5,
        min_size: int = 0,
        min_foreground: int = 0,
        min_free: int = 0,
        count_seed: bool = False,
        overwrite: bool = True,
        recentre: int = 0,
        whole_masks: bool = False,
        seed_mean: str = "pixels",
        seed_target: str = "gaussian",
        seed_epochs: int = 0,
        follows: bool = False,
        motion_weight: float = 1.0,
    ) -> None:
        """Build the network and keep the numbers of the paper.

        Args:
            make_network: gives a network for a list of output channels, one entry for each decoder.
            n_classes: classes, each with its own seed map.
            spacing: length of a step along each axis: three numbers for volumes, along (plane, row, column).
            margin: "elliptical" (learned along each axis; the paper's best), "circular" (learned), "fixed" or, for
                volumes, "planar" (learned across the planes and, alike for rows and columns, within them).
            centre: what an object's pixels are drawn to: "learnable", the mean of their embeddings (the paper's
                best); "centroid"; or "medoid", the object's pixel with least distance to its others, or
                "approximate-medoid", the one nearest to their median.
            objective: "gaussian", the paper's loss, or one of its baselines: "regression" (section 3.1) and
                "hinge" (3.2), which need `margin="fixed"` and one of the centres that the labels decide.
            fixed_margin: in pixels, for `margin="fixed"`: half the width of the smallest claim; delta of 3.2.
            initial_margin: in pixels, the margin that an untrained network gives.
            grid_step: grid units per pixel along (row, column) or, for volumes, (plane, row, column). Of two numbers
                for a volume, those along its axes follow from the spacing.
            foreground_weight: f of the seed loss; one number, or one for each class.
            instance_weight: of the instance term in the loss.
            smoothness_weight: of the smoothness term.
            seed_weight: of the seed term.
            foreground_threshold: seed score above which a pixel can belong to an object.
            seed_threshold: seed score from which a pixel can start one; the paper's Cityscapes models use 0.9.
            min_size: objects have at least this many pixels. The published code asks for more than 128, and has 128 in
                the next two; EmbedSeg has 0.
            min_foreground: images with this many foreground pixels or fewer are left empty.
            min_free: grouping ends when this many pixels or fewer are unclaimed.
            count_seed: whether the seed counts as new in its own claim. In the published code it does not, so an
                object of one or two pixels is never found.
            overwrite: whether a later object takes pixels that an earlier one has, as in the published code.
            recentre: how often a claim is made anew around the mean embedding and raw sigma of what it has claimed,
                weighted by seed score; not at all in the published code. Two are enough.
            whole_masks: whether an object's mask is all that it claims, with pixels that the label image gives to
                another; `Instances.masks` then holds the masks of an image in which some overlap. In the published
                code an object keeps only what no other one takes. Label image and scores stay the same.
            seed_mean: what counts alike in the seed loss: "pixels", as in the published code, or "objects", each of
                which then weighs as much as one of mean size in the batch, so that small ones count, too.
            seed_target: what the seed score of an object's pixel learns: "gaussian", its own Gaussian, as in the paper,
                or "distance", from one half at the object's rim to one where it is deepest (after InstanSeg); this is
                computed on the processor.
            seed_epochs: epochs of training, counted from the first, in which only the seed term counts.
            follows: whether the network also says where each pixel's object was one frame ago (EmbedTrack), for films.
            motion_weight: of that term in the loss.

        Raises:
            InputError: if a name or a combination of names is not one of these.
        """
        super().__init__()
        _check_choices(margin, centre, objective, seed_mean, seed_target)
        for name, pixels in (("fixed_margin", fixed_margin), ("initial_margin", initial_margin)):
            check_number(name, pixels, 1e-3, MOST_PIXELS)
        for name, pixels in (("min_foreground", min_foreground), ("min_free", min_free)):
            check_number(name, pixels, 0, MOST_PIXELS)
        check_number("recentre", recentre, 0, MOST_RECENTRED)
        check_number("seed_epochs", seed_epochs, 0)
        _check_grid(grid_step, len(spacing))
        if len(spacing) == 2 and margin == "planar":
            raise InputError('margin = "planar" tells planes from what is across them: it is for volumes alone.')
        self.n_classes, self.n_axes = n_classes, len(spacing)
        self.spacing = tuple(spacing)
        if self.n_axes == 3:
            self.threshold_candidates = CANDIDATES_OF_VOLUMES
        self.margin, self.centre, self.objective = margin, centre, objective
        self.fixed_margin = fixed_margin
        self.grid_step = _grid_along(grid_step, self.spacing)
        self.n_sigma = {"fixed": 0, "circular": 1, "planar": 2, "elliptical": self.n_axes}[margin]
        self.foreground_weight = _per_class(foreground_weight, n_classes)
        self.weights = checked_weights(instance=instance_weight, smoothness=smoothness_weight, seed=seed_weight)
        self.follows = follows
        if follows:
            self.weights |= checked_weights(motion=motion_weight)
        self.thresholds: dict[str, float] = {
            "foreground_threshold": foreground_threshold,
            "seed_threshold": seed_threshold,
            "min_size": min_size,
        }
        check_thresholds(self.thresholds, self.threshold_ranges)
        self.grouping: Rules = {
            "min_foreground": min_foreground,
            "min_free": min_free,
            "count_seed": count_seed,
            "overwrite": overwrite,
        }
        self.recentre, self.seed_mean = recentre, seed_mean
        self.seed_target, self.seed_epochs = seed_target, seed_epochs
        self.seeds_alone = False  # see at_epoch
        self.whole_masks = False
        if whole_masks:
            self.keep_whole_masks()
        joint = {"joint_channels": self.n_axes} if follows else {}
        self.network = make_network([self.n_axes + self.n_sigma, n_classes], **joint)
        self._start_at(initial_margin)

    @staticmethod
    def suggestions(statistics: ObjectStatistics) -> Suggestions:
        """Keys of a recipe that suit such objects: their shape decides the kind of margin, their size its start."""
        ratio = np.median(statistics.extents.max(1) / statistics.extents.min(1).clip(1))
        options: dict[str, object] = {
            "margin": "elliptical" if ratio >= 1.15 else "circular",
            "initial_margin": round(0.29 * statistics.typical_size, 1),
            "min_size": statistics.min_object // 4,
        }
        if statistics.n_axes == 3:
            options["margin"] = "elliptical"
            weight = float(np.clip(round(statistics.rarity), 1, MOST_WEIGHT))
            options["foreground_weight"] = weight
            options["seed_threshold"] = round(_score_of(CHANCE_OF_SEEDS, weight), 2)
        elif len(statistics.class_shares) == 1:
            options |= {"foreground_threshold": FOREGROUND_OF_IMAGES, "seed_threshold": SEED_OF_IMAGES}
        if len(statistics.class_shares) == 1:
            options["recentre"] = 2  # photographs with several classes want the grouping that GPUs have
        elif statistics.n_axes == 2:
            options["foreground_weight"] = class_weights(statistics.class_shares)
        return {"model": {"options": options}}

    def _start_at(self, margin: float) -> None:
        """Let an untrained network point nowhere, with the same margin (in pixels) everywhere."""
        first, n = self.n_axes, self.n_axes + self.n_sigma
        last = self.network.heads[0]
        sigma = torch.tensor(self._sigma_of(margin))
        assert last.bias is not None
        with torch.no_grad():
            last.weight[:, :n] = 0
            last.bias[:first] = 0
            last.bias[first:n] = sigma if self.margin == "elliptical" else sigma.mean()
            if self.follows:
                joint = self.network.heads[-1]
                assert joint.bias is not None
                joint.weight[:], joint.bias[:] = 0, 0

    def _sigma_of(self, margin: float) -> tuple[float, ...]:
        """Raw sigma of a margin in pixels, along each axis; in a volume it is as long along all of them."""
        lengths = (step * self.spacing[-1] / own for step, own in zip(self.grid_step, self.spacing, strict=True))
        return tuple(math.log(math.log(2) / (margin * step) ** 2) / 10 for step in lengths)

    @torch.no_grad()
    def put_rows_first(self) -> None:
        """Swap rows and columns in a network that was trained to give (x, y), as models of format 1 were."""
        last = self.network.heads[0]
        assert last.bias is not None
        order = [1, 0, 3, 2] if self.margin == "elliptical" else [1, 0]
        last.weight[:, : len(order)] = last.weight[:, order]
        last.bias[: len(order)] = last.bias[order]

    # ---------------------------------------------------------------- the network's answer

    def forward(self, images: Float[Tensor, "b i *s"]) -> Maps:
        """Raw maps of a batch of normalised images or volumes; of frames in their order, if the method follows."""
        raw = self.network(images)
        widths = [self.n_axes, self.n_sigma, self.n_classes]
        return MovingMaps(*raw.split([*widths, self.n_axes], 1)) if self.follows else Maps(*raw.split(widths, 1))

    def decode(self, maps: Maps) -> tuple[Float[Tensor, "b a *s"], Float[Tensor, "b a *s"], Float[Tensor, "b c *s"]]:
        """Embedding and concentration in grid units, and seed score, of each pixel."""
        embedding = _embedding(self.coordinates(maps.offset), maps.offset)
        return embedding, _concentration(self._full_sigma(maps)), torch.sigmoid(maps.seed)

    def steps(self, maps: Maps) -> Float[Tensor, "b a *s"]:
        """From each pixel to the middle of its object in the image before, in pixels along each axis."""
        assert isinstance(maps, MovingMaps)
        step = maps.motion.new_tensor(self.grid_step).view(-1, *[1] * self.n_axes)
        return torch.tanh(maps.motion) / step

    def coordinates(self, like: Float[Tensor, "b _ *s"]) -> Float[Tensor, "a *s"]:
        """Place of each pixel along each axis, in grid units."""
        shape = like.shape[2:]
        along = (
            torch.arange(n, dtype=like.dtype, device=like.device) * step
            for n, step in zip(shape, self.grid_step, strict=True)
        )
        return torch.stack(torch.meshgrid(*along, indexing="ij"))

    def _full_sigma(self, maps: Maps) -> Float[Tensor, "b a *s"]:
        """Raw sigma along each axis, whatever the margin."""
        b, shape = len(maps.offset), maps.offset.shape[2:]
        if self.margin == "fixed":
            sigma = maps.offset.new_tensor(self._sigma_of(self.fixed_margin))
            return sigma.view(-1, *[1] * self.n_axes).expand(b, self.n_axes, *shape)
        if self.margin == "planar" and maps.sigma.shape[1] == 2:
            return maps.sigma[:, [0, 1, 1]]
        return maps.sigma.expand(b, self.n_axes, *shape)

    def turned(self, maps: Maps, view: View) -> Maps:
        """Maps of the image itself, from those of a view: pixels are put back, and the vectors turned with them."""
        offset, sigma, seed = view.undo(maps.offset), view.undo(maps.sigma), view.undo(maps.seed)
        if not self._is_alike_in_all_views():
            sigma = self._full_sigma(Maps(offset, sigma, seed))
        axes = view.axes(self.n_axes)
        if sigma.shape[1] == self.n_axes:
            sigma = torch.stack([self._sigma_along(axis, sigma, own) for axis, (own, _) in enumerate(axes)], 1)

        def turned_back(vectors: Float[Tensor, "b a *s"]) -> Float[Tensor, "b a *s"]:
            return torch.stack([self._offset_along(axis, vectors, *own) for axis, own in enumerate(axes)], 1)

        back = Maps(turned_back(offset), sigma, seed)
        if not isinstance(maps, MovingMaps):
            return back
        return MovingMaps(**vars(back), motion=turned_back(view.undo(maps.motion)))

    def _is_alike_in_all_views(self) -> bool:
        """Whether a margin with fewer numbers than axes has the same ones however the image is turned."""
        if self.margin == "circular":
            return len(set(self.grid_step)) == 1 or self.n_axes == 3  # planes are only exchanged where steps agree
        return self.margin != "planar" or not math.isclose(self.spacing[0], self.spacing[1])

    def _offset_along(
        self, axis: int, offset: Float[Tensor, "b a *s"], of_view: int, sign: int
    ) -> Float[Tensor, "b *s"]:
        """Raw offset along an axis, from that along an axis of the view; grid units along the two may differ."""
        values = offset[:, of_view] if sign > 0 else -offset[:, of_view]
        factor = self.grid_step[axis] / self.grid_step[of_view]
        return values if factor == 1 else _scaled(values, factor)

    def _sigma_along(self, axis: int, sigma: Float[Tensor, "b a *s"], of_view: int) -> Float[Tensor, "b *s"]:
        """Raw sigma along an axis, whose exponential goes by the square of a length."""
        factor = self.grid_step[axis] / self.grid_step[of_view]
        return sigma[:, of_view] if factor == 1 else sigma[:, of_view] - 2 * math.log(factor) / 10

    def resampled(self, maps: Maps, shape: tuple[int, ...]) -> Maps:
        """Maps of the image itself, from those of the image on a finer or coarser grid, with lengths in its own pixels.

        Offsets are interpolated in grid units, so that pixels between two that point at one place point there, too.
        """
        factors = [seen / own for seen, own in zip(maps.seed.shape[2:], shape, strict=True)]

        def brought_back(values: Float[Tensor, "b m *s"]) -> Float[Tensor, "b m *t"]:
            return F.interpolate(values, shape, mode="bilinear", align_corners=False, antialias=max(factors) > 1)

        def shortened(vectors: Float[Tensor, "b a *s"]) -> Float[Tensor, "b a *t"]:
            return _raw(brought_back(torch.tanh(vectors)) / vectors.new_tensor(factors)[:, None, None])

        sigma = maps.sigma.new_empty(*maps.sigma.shape[:2], *shape)
        if self.n_sigma:
            changes = maps.sigma.new_tensor([2 * math.log(factor) / 10 for factor in factors])
            changes = changes if self.n_sigma == 2 else changes.mean(0, keepdim=True)
            sigma = brought_back(maps.sigma) + changes[:, None, None]
        own = Maps(shortened(maps.offset), sigma, brought_back(maps.seed))
        if not isinstance(maps, MovingMaps):
            return own
        return MovingMaps(**vars(own), motion=shortened(maps.motion))

    def averaged(self, views: Iterable[Maps]) -> Maps:
        """Mean of several maps of one image, for test-time augmentation, in float32 or better.

        Offsets are averaged in grid units. If objects are drawn to the mean of their embeddings, nothing keeps the
        network from moving *all* embeddings by one vector, and it does; in a turned view, that vector points
        elsewhere. Such moves average to a single move, which changes no distance; in the mean of raw offsets, the
        bend of tanh would make them stretch distances instead.
        """
        n, sums = 0, dict[str, Tensor]()
        for maps in views:  # not by `enumerate`, which holds the last ones until it has the next
            n, kind = n + 1, type(maps)
            for name, values in vars(maps).items():
                values = torch.tanh(values) if name in VECTORS else values
                if name in sums:
                    sums[name] += values
                else:
                    sums[name] = values.to(torch.promote_types(values.dtype, torch.float32), copy=True)
            del maps, values  # before the next view is computed
        means = {name: torch.atanh(values / n) if name in VECTORS else values / n for name, values in sums.items()}
        return kind(**means)

    # ---------------------------------------------------------------- loss

    def at_epoch(self, epoch: int) -> None:
        """Say which epoch of training it is, counted from 0: in the first ones, the seed term may count alone."""
        self.seeds_alone = epoch < self.seed_epochs

    def loss(self, maps: Maps, truth: Truth) -> dict[str, Float[Tensor, ""]]:
        """The paper's three terms: `instance`, `smoothness` and `seed`; an image without objects has only the last."""
        with torch.autocast(maps.offset.device.type, enabled=False):
            maps = _precise(maps)
            objects = Objects.of(truth)
            embedding, _, seed = self.decode(maps)
            sigma = self._full_sigma(maps)
            centre = self._centres(embedding, objects, truth)
            mean_sigma = objects.mean(sigma)  # (k, a)
            concentration = torch.exp(10 * mean_sigma)
            own_distance = objects.at_pixels(embedding) - centre[objects.of_pixel]  # (n, a)
            phi = torch.exp(-(own_distance.square() * concentration[objects.of_pixel]).sum(1))
            terms = {"instance": self._instance_term(embedding, centre, concentration, own_distance, objects)}
            if self.margin != "fixed":
                deviation = objects.at_pixels(maps.sigma) - mean_sigma.detach()[objects.of_pixel, : self.n_sigma]
                terms["smoothness"] = objects.mean_over_images(objects.mean_values(deviation.square().mean(1)))
            target = phi.detach() if self.seed_target == "gaussian" else self._depth(objects).to(phi)
            terms["seed"] = self._seed_term(seed, target, objects)
            if isinstance(maps, MovingMaps):
                terms["motion"] = self._motion_term(maps.motion, sigma.detach(), truth, objects)
            if self.seeds_alone:
                return {name: term if name == "seed" else 0 * term for name, term in terms.items()}
            return terms

    def _centres(self, embedding: Float[Tensor, "b a *s"], objects: Objects, truth: Truth) -> Float[Tensor, "k a"]:
        """The point that each object's pixels are drawn to."""
        if self.centre == "learnable":
            return objects.mean(embedding)
        coordinates = self.coordinates(embedding).expand(embedding.shape)
        if self.centre == "centroid":
            return objects.mean(coordinates)
        approximate = self.centre == "approximate-medoid"
        pixel = medoids(objects.owner, len(objects.image), spacing=self.spacing, approximate=approximate)
        step = torch.tensor(self.grid_step, dtype=embedding.dtype, device=embedding.device)
        return pixel.to(step) * step

    def _instance_term(
        self,
        embedding: Float[Tensor, "b a *s"],
        centre: Float[Tensor, "k a"],
        concentration: Float[Tensor, "k a"],
        own_distance: Float[Tensor, "n a"],
        objects: Objects,
    ) -> Float[Tensor, ""]:
        if self.objective == "gaussian":
            weight = objects.weight.to(embedding.dtype)
            total = lovasz_gaussians(
                embedding.flatten(2), objects.owner.flatten(1), centre, concentration, objects.image, weight
            )
            return total + 0 * (centre.sum() + embedding.sum())  # a gradient of zero where there is no object
        step = torch.tensor(self.grid_step, dtype=embedding.dtype, device=embedding.device)
        error = torch.linalg.norm(own_distance / step, dim=1)  # pixels
        if self.objective == "hinge":
            error = torch.relu(error - self.fixed_margin)
        return objects.mean_over_pixels(error) + 0 * embedding.sum()

    def _motion_term(
        self, motion: Float[Tensor, "b a *s"], sigma: Float[Tensor, "b a *s"], truth: Truth, objects: Objects
    ) -> Float[Tensor, ""]:
        """The instance term again: all that comes from one object of the frame before is drawn to its medoid there.

        A Gaussian far away has no gradient, and a medoid, unlike a mean of embeddings, does not come along; so what is
        outside its margin is also drawn in by its distance, in margins.

        Source: EmbedTrack; there each child is drawn to the parent alone, and its sibling pushed away from it.
        """
        if truth.earlier is None:
            return 0 * motion.sum()
        came = Objects.of(truth.origins())
        place = torch.zeros(len(motion), truth.classes.shape[1] + 1, dtype=torch.long, device=motion.device)
        place[objects.image, objects.label] = torch.arange(len(objects.image), device=motion.device)
        middle = medoids(objects.owner, len(objects.image), spacing=self.spacing, approximate=True).to(motion)
        before = (came.image - 1) % len(motion)
        centre = middle[place[before, came.label]] * motion.new_tensor(self.grid_step)
        concentration = torch.exp(10 * came.mean(sigma))
        embedding = _embedding(self.coordinates(motion), motion)
        n_frames = len(torch.unique(came.image))
        weight = came.weight.to(motion.dtype) * len(motion) / max(n_frames, 1)  # a mean over frames with such objects
        total = lovasz_gaussians(embedding.flatten(2), came.owner.flatten(1), centre, concentration, came.image, weight)
        apart = (came.at_pixels(embedding) - centre[came.of_pixel]) * concentration.sqrt()[came.of_pixel]
        beyond = torch.relu(torch.linalg.norm(apart, dim=1) / math.sqrt(math.log(2)) - 1)
        return total + (weight * came.mean_values(beyond)).sum() + 0 * motion.sum()

    def _depth(self, objects: Objects) -> Float[Tensor, " n"]:
        """How deep in its object each pixel lies, from one half at the rim to one where the object is deepest."""
        depth = objects.at_pixels(depths(objects.owner, spacing=self.spacing)[:, None])[:, 0]
        deepest = depth.new_zeros(len(objects.image)).scatter_reduce(0, objects.of_pixel, depth, "amax")
        return (1 + depth / deepest[objects.of_pixel]) / 2

    def _seed_term(
        self, seed: Float[Tensor, "b c *s"], target: Float[Tensor, " n"], objects: Objects
    ) -> Float[Tensor, ""]:
        """Squared error of the seed maps: 0 outside their class, the pixel's target inside."""
        b = len(seed)
        pixel_image = objects.image[objects.of_pixel]
        pixel_class = objects.classes[objects.of_pixel] - 1
        inside = objects.at_pixels(seed)[torch.arange(len(target), device=seed.device), pixel_class]
        factor = torch.tensor(self.foreground_weight, dtype=seed.dtype, device=seed.device)[pixel_class]
        # The background of a class is all that is not of that class: the sum over everything, minus those pixels.
        square = (seed.square().sum(1) * (objects.owner >= 0)).flatten(1).sum(1)
        weight = factor if self.seed_mean == "pixels" else factor * objects.alike
        correction = weight * (inside - target).square() - inside.square()
        total = square + seed.new_zeros(b).index_add(0, pixel_image, correction)
        return (total / objects.n_valid.clamp(min=1)).mean()

    # ---------------------------------------------------------------- grouping

    def keep_whole_masks(self) -> None:
        """From now on an object's mask is all that it claims, as with the option `whole_masks`.

        Raises:
            InputError: if pixels go to the nearest object, so that nothing is claimed twice, or for volumes.
        """
        if self.n_axes == 3:
            raise InputError("Objects of volumes have no masks beside the label image; leave whole masks out.")
        if self.objective == "regression":
            raise InputError(
                'objective = "regression" gives each pixel to one object, so no masks overlap; leave whole masks out.'
            )
        self.whole_masks = True

    @torch.no_grad()
    def group(self, maps: Maps) -> list[Instances]:
        """Objects of each image, class by class, the best seed first.

        If two classes claim a pixel, the higher seed score wins; what is left of an object that loses pixels must also
        have `min_size` pixels.
        """
        on_device = self.objective != "regression" and not (self.recentre or self.whole_masks or self.n_axes == 3)
        if on_device and runs_triton(maps.offset.device.type):
            return [self._group_on_device(*image) for image in zip(*self.decode(_precise(maps)), strict=True)]
        shape = tuple(maps.offset.shape[2:])
        images = [each_changed(maps, itemgetter(slice(n, n + 1))) for n in range(len(maps.seed))]
        return [self.group_gathered(self.gathered(image), shape).found for image in images]

    @torch.no_grad()
    def gathered(self, maps: Maps, *, corner: tuple[int, ...] = ()) -> list[Points]:
        """The pixels of each class above the foreground threshold: score, embedding and concentration.

        Args:
            maps: of one image, or of a part of it.
            corner: place of the image at which the part begins, by default its first; embeddings are places in the
                image.
        """
        offset, sigma, scores = (_numpy(x[0]) for x in (maps.offset, self._full_sigma(maps), torch.sigmoid(maps.seed)))
        first = corner or (0,) * self.n_axes
        of_classes = []
        for seed in scores:
            pixel, score = foreground(seed, self.thresholds["foreground_threshold"])
            along = _unravelled(pixel, scores.shape[1:])
            place = np.stack([own + start for own, start in zip(along, first, strict=True)]).astype(offset.dtype)
            position = torch.from_numpy(place) * torch.tensor(self.grid_step, dtype=maps.offset.dtype)[:, None]
            embedding = _embedding(position, torch.from_numpy(at(offset, pixel)))
            concentration = _concentration(torch.from_numpy(at(sigma, pixel)))
            values = {"score": score, "embedding": embedding.numpy(), "concentration": concentration.numpy()}
            of_classes.append(Points(pixel, values))
        return of_classes

    def group_gathered(self, of_classes: Sequence[Points], shape: tuple[int, ...]) -> Grown:
        """Objects of an image of this shape, from what was gathered of it for each class.

        Embeddings may be places in a larger image, of which this one is a part.
        """
        labels = np.zeros(shape, np.int32)
        best, classes = np.full(1, -1.0), np.zeros(1, np.int32)  # score and class of each label, background first
        seeds = np.zeros(1, np.int32)
        claims: list[Int32[np.ndarray, "_"]] = []
        for number, points in enumerate(of_classes, 1):
            found, grown, of_objects = self._group_class(points, shape)
            claims += of_objects
            scores = points.values["score"][grown]
            claimed = points.pixel[found.ravel()[points.pixel] > 0]
            own = found.ravel()[claimed]
            wins = scores[own - 1] > best[labels.ravel()[claimed]]
            labels.ravel()[claimed[wins]] = own[wins] + len(best) - 1
            best = np.concatenate([best, scores])
            classes = np.concatenate([classes, np.full(len(scores), number, np.int32)])
            seeds = np.concatenate([seeds, points.pixel[grown]])
        if self.n_classes > 1:
            labels[np.bincount(labels.ravel())[labels] < self.thresholds["min_size"]] = 0
        labels, kept = relabel(labels)  # objects that lost all their pixels are gone
        masks = _masks_that_overlap([claims[number - 1] for number in kept], shape) if self.whole_masks else None
        return Grown(Instances(labels, classes[kept], best[kept].astype(np.float32), masks), seeds[kept])

    def _group_class(
        self, points: Points, shape: tuple[int, ...]
    ) -> tuple[Int32[np.ndarray, "*s"], Int32[np.ndarray, " k"], list[Int32[np.ndarray, "_"]]]:
        """Labels of one class, the point each grew from, and the pixels it claims if masks are to be whole."""
        of_pixels = points.pixel, *(points.values[name] for name in ("score", "embedding", "concentration")), shape
        thresholds = {name: value for name, value in self.thresholds.items() if name != "foreground_threshold"}
        if self.whole_masks:
            labels, grown, claims = seeded_claims(*of_pixels, recentre=self.recentre, **thresholds, **self.grouping)
            return labels, grown, claims
        labels, grown = seeded_points(*of_pixels, recentre=self.recentre, **thresholds, **self.grouping)
        if self.objective == "regression":
            owner = labels.ravel()[points.pixel]
            labels.ravel()[points.pixel] = _nearest(points.values["embedding"], owner)
        return labels, grown, []

    def _group_on_device(
        self, embedding: Float[Tensor, "2 h w"], concentration: Float[Tensor, "2 h w"], seed: Float[Tensor, "c h w"]
    ) -> Instances:
        """Objects of one image by the rules of `group_gathered`, found on the maps' device, which only they leave."""
        from attractor.kernels.seeded_gaussians_cuda import seeded_gaussians_cuda  # imports Triton

        labels = torch.zeros(seed.shape[1:], dtype=torch.int32, device=seed.device)
        best, classes = seed.new_full((1,), -1), labels.new_zeros(1)  # of each label, background first
        for number, of_class in enumerate(seed, 1):
            found, scores = seeded_gaussians_cuda(
                embedding, concentration, of_class, **self.thresholds, **self.grouping
            )
            wins = torch.cat([best[:1], scores])[found] > best[labels]
            labels = torch.where(wins, found + (len(best) - 1), labels)
            best = torch.cat([best, scores])
            classes = torch.cat([classes, classes.new_full((len(scores),), number)])
        size = torch.bincount(labels.flatten(), minlength=len(best))
        is_kept = size >= max(1, self.thresholds["min_size"] if self.n_classes > 1 else 1)
        is_kept[0] = False
        number_of = torch.where(is_kept, is_kept.cumsum(0), 0).to(torch.int32)
        return Instances(
            number_of[labels].cpu().numpy(), classes[is_kept].cpu().numpy(), best[is_kept].float().cpu().numpy()
        )

    @torch.no_grad()
    def group_seeded(self, maps: Maps, truth: Truth) -> list[Instances]:
        """Objects read off with the true centre, bandwidth and class: what the embedding alone can reach.

        Centre and bandwidth are the means of embedding and raw sigma over each true object. Masks may overlap
        and are kept whole; each object has score 1.

        Source: Neven et al. 2019, Table 2.
        """
        objects = Objects.of(truth)
        embedding, _, _ = self.decode(maps)
        centre = objects.mean(embedding)
        concentration = torch.exp(10 * objects.mean(self._full_sigma(maps)))
        results = []
        for b in range(len(embedding)):
            own = torch.nonzero(objects.image == b)[:, 0]
            distance = [squared_distance(embedding[b], centre[k], concentration[k]) for k in own]
            if self.objective == "regression" and len(own):
                foreground = truth.labels[b] > 0
                nearest = torch.stack(distance).argmin(0)
                masks = [foreground & (nearest == i) for i in range(len(own))]
            else:
                masks = [d < _limit(d.dtype) for d in distance]
            results.append(
                Instances.from_masks(
                    [mask.cpu().numpy() for mask in masks],
                    objects.classes[own].to(torch.int32).cpu().numpy(),
                    np.ones(len(own), np.float32),
                    tuple(embedding.shape[2:]),
                )
            )
        return results


# -------------------------------------------------------------------- from raw to physical


def _embedding(position: Float[Tensor, "*_ a *s"], offset: Float[Tensor, "*_ a *s"]) -> Float[Tensor, "*_ a *s"]:
    """Where pixels at a position point."""
    return position + torch.tanh(offset)


def _scaled(offset: Float[Tensor, "*n"], factor: float) -> Float[Tensor, "*n"]:
    """The raw offset that is a multiple of another one in grid units."""
    return _raw(factor * torch.tanh(offset))


def _raw(offset: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The raw offset of one in grid units; at most 1, which is all that tanh can give."""
    most = 1 - 2 * torch.finfo(offset.dtype).eps
    return torch.atanh(offset.clamp(-most, most))


def _concentration(sigma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """1 / (2 sigma^2) of a raw sigma."""
    return torch.exp(10 * sigma)


def _numpy(values: Float[Tensor, "*n"]) -> Float[np.ndarray, "*n"]:
    """As a NumPy array, in at least single precision."""
    return (values if values.dtype == torch.float64 else values.float()).cpu().numpy()


def _unravelled(pixel: Int[np.ndarray, " n"], shape: tuple[int, ...]) -> list[Int[np.ndarray, " n"]]:
    """Places along each axis of pixels counted row by row; NumPy's function takes three times as long."""
    along = []
    for n in reversed(shape[1:]):
        along.append(pixel % n)
        pixel = pixel // n
    return [pixel, *reversed(along)]


def _masks_that_overlap(
    claims: Sequence[Int32[np.ndarray, "_"]], shape: tuple[int, ...]
) -> tuple[Int[np.ndarray, "_"], ...] | None:
    """The run lengths of what each object claims; None where no pixel is claimed twice."""
    claimed = np.zeros(shape, bool)
    for pixels in claims:
        claimed.ravel()[pixels] = True
    if claimed.sum() == sum(len(pixels) for pixels in claims):
        return None
    height, width = shape
    return tuple(encode_pixels(pixels, (height, width)) for pixels in claims)


# -------------------------------------------------------------------- the definitions, plain


def squared_distance(
    embedding: Float[Tensor, "a *n"], centre: Float[Tensor, " a"], concentration: Float[Tensor, " a"]
) -> Float[Tensor, "*n"]:
    """Distance of each embedding to a centre in units of the bandwidth; inside the margin it is below ln 2.

    exp(-distance) is the paper's Gaussian, which is above 1/2 inside.
    """
    first, *others = ((x - c) * (x - c) * p for x, c, p in zip(embedding, centre, concentration, strict=True))
    distance: Tensor = first
    for square in others:
        distance = distance + square
    return distance


def _limit(dtype: torch.dtype) -> float:
    """Ln 2 in the dtype of the maps, so that the plain and the fast grouping decide alike."""
    return float(torch.tensor(math.log(2), dtype=dtype))


def group_plain(
    embedding: Float[Tensor, "a *s"],
    concentration: Float[Tensor, "a *s"],
    seed: Float[Tensor, "*s"],
    *,
    foreground_threshold: float,
    seed_threshold: float,
    min_size: int,
    min_foreground: int,
    min_free: int,
    count_seed: bool,
    overwrite: bool,
    recentre: int = 0,
) -> tuple[Int32[Tensor, "*s"], Float[Tensor, " k"]]:
    """The sequential clustering of the paper for one image and class: the definition that the fast form equals.

    Returns:
        The label image and each object's score; an object has no pixels if later ones took them all.
    """
    claims, scores = claims_plain(
        embedding,
        concentration,
        seed,
        foreground_threshold=foreground_threshold,
        seed_threshold=seed_threshold,
        min_size=min_size,
        min_foreground=min_foreground,
        min_free=min_free,
        count_seed=count_seed,
        recentre=recentre,
    )
    labels = torch.zeros(seed.shape, dtype=torch.int32)
    for label, claim in enumerate(claims, 1):
        labels[claim if overwrite else claim & (labels == 0)] = label
    return labels, scores


def claims_plain(
    embedding: Float[Tensor, "a *s"],
    concentration: Float[Tensor, "a *s"],
    seed: Float[Tensor, "*s"],
    *,
    foreground_threshold: float,
    seed_threshold: float,
    min_size: int,
    min_foreground: int,
    min_free: int,
    count_seed: bool,
    recentre: int = 0,
) -> tuple[Bool[Tensor, "k *s"], Float[Tensor, " k"]]:
    """What each object of one image and class claims, whether others claim it, too, and each object's score."""
    foreground = seed > foreground_threshold
    e, p, q = embedding[:, foreground], concentration[:, foreground], seed[foreground]
    free = torch.ones(len(q), dtype=torch.bool)
    claims, scores = list[Tensor](), list[Tensor]()
    if len(q) <= min_foreground:
        return foreground[None][:0], q[:0]
    while free.sum() > min_free:
        best = torch.where(free, q, -1).argmax()
        if q[best] < seed_threshold:
            break
        if not count_seed:
            free[best] = False
        claim = squared_distance(e, e[:, best], p[:, best]) < _limit(e.dtype)
        for _ in range(recentre):
            if not claim.any():  # there is nothing to take a mean of
                break
            centre, concentration = _mean_gaussian(e[:, claim], p[:, claim], q[claim])
            claim = squared_distance(e, centre, concentration) < _limit(e.dtype)
        if claim.sum() >= min_size and 2 * (claim & free).sum() > claim.sum():
            scores.append(q[best])
            claims.append(torch.zeros_like(foreground).masked_scatter(foreground, claim))
        free &= ~claim
        free[best] = False  # even if its bandwidth is not a number: the loop must end
    return (torch.stack(claims), torch.stack(scores)) if scores else (foreground[None][:0], q[:0])


def _mean_gaussian(
    embedding: Float[Tensor, "a n"], concentration: Float[Tensor, "a n"], score: Float[Tensor, " n"]
) -> tuple[Float[Tensor, " a"], Float[Tensor, " a"]]:
    """Centre and concentration of the mean embedding and raw sigma of some pixels, weighted by their scores."""
    weight = score.double() / score.double().sum()
    centre = (embedding.double() * weight).sum(1)
    log_concentration = (concentration.double().log() * weight).sum(1)
    return centre.to(embedding.dtype), log_concentration.exp().to(embedding.dtype)


def instance_loss_plain(
    embedding: Float[Tensor, "a n"],
    owner: Int[Tensor, " n"],
    centre: Float[Tensor, "k a"],
    concentration: Float[Tensor, "k a"],
) -> Float[Tensor, " k"]:
    """Lovász hinge of each object of one image: the definition that the fast form equals.

    Args:
        embedding: where each pixel points.
        owner: 0 for background, 1 to k for objects, -1 for a pixel to leave out.
        centre: of each object.
        concentration: 1 / (2 sigma^2) of each object along each axis.
    """
    valid = owner >= 0
    losses = []
    for k in range(len(centre)):
        phi = torch.exp(-squared_distance(embedding[:, valid], centre[k], concentration[k]))
        losses.append(lovasz_hinge(2 * phi - 1, owner[valid] == k + 1))
    return torch.stack(losses) if losses else embedding.sum(1)[:0]


def _precise(maps: Maps) -> Maps:
    """The maps with at least 32 bits for a number."""
    return each_changed(maps, lambda x: x if x.dtype == torch.float64 else x.float())


def _score_of(chance: float, weight: float) -> float:
    """The seed score of least loss for a pixel that is foreground with this chance, if foreground has a weight."""
    return weight * chance / (1 + (weight - 1) * chance)


def _nearest(embedding: Float[np.ndarray, "a n"], owner: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """For each foreground pixel, the object whose centroid its embedding is nearest to (section 3.1)."""
    from scipy.spatial import cKDTree  # rarely asked for, and slow to import

    ids = np.unique(owner[owner > 0])
    if not len(ids):
        return owner
    size = np.bincount(owner)[ids]
    means = [np.bincount(owner, axis)[ids] / size for axis in embedding]
    nearest: Int32[np.ndarray, " n"] = ids[cKDTree(np.stack(means, 1)).query(embedding.T)[1]]
    return nearest


def class_weights(shares: Float[np.ndarray, " c"]) -> list[float]:
    """Weight f of each class in the seed loss: the rarer, the higher; the most frequent one has the paper's 10.

    Args:
        shares: the share of all pixels that objects of each class have, 0 to 1.

    Source: ENet's class weights, 1 / ln(1.02 + share); the paper's text on f is cut off in our copy.
    """
    weights = 1 / np.log(1.02 + shares)
    return [round(float(weight), 1) for weight in 10 * weights / weights.min()]


def _per_class(weight: float | Sequence[float], n_classes: int) -> tuple[float, ...]:
    weights = tuple(weight) if isinstance(weight, Sequence) else (float(weight),) * n_classes
    if len(weights) != n_classes:
        raise InputError(
            f"foreground_weight has {len(weights)} numbers for {n_classes} classes; give one, or one for each class."
        )
    for each in weights:
        check_number("foreground_weight", each, 0)
    return weights


def _check_choices(margin: str, centre: str, objective: str, seed_mean: str, seed_target: str) -> None:
    check_choice("margin", margin, MARGINS)
    check_choice("centre", centre, CENTRES)
    check_choice("objective", objective, OBJECTIVES)
    check_choice("seed_mean", seed_mean, SEED_MEANS)
    check_choice("seed_target", seed_target, SEED_TARGETS)
    if objective != "gaussian" and (margin != "fixed" or centre == "learnable"):
        raise InputError(
            f'objective = "{objective}" learns no bandwidth and no centre: use it with margin = "fixed" and '
            f'centre = "centroid" or "medoid" (found margin = "{margin}", centre = "{centre}").'
        )


def _check_grid(step: Sequence[float], n_axes: int) -> None:
    if len(step) not in (2, n_axes):
        volumes = ", or three for a volume, along planes, rows and columns" if n_axes == 3 else ""
        raise InputError(
            f"grid_step has {len(step)} numbers; give two, the grid units of a pixel along rows and columns{volumes}."
        )
    for along in step:
        check_number("grid_step", along, 1e-6, 1)


def _grid_along(step: Sequence[float], spacing: Sequence[float]) -> tuple[float, ...]:
    """Grid units of a pixel along each axis; those along the axes of a volume are in proportion to its spacing."""
    if len(step) == len(spacing):
        return tuple(step)
    along_rows, along_columns = step
    plane, row, column = spacing
    return along_columns * plane / column, along_rows * row / column, along_columns
