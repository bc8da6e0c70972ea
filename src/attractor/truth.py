"""What a loss knows about a batch of annotated images; it is the same for every method.

Shapes: `b` images or volumes, `c` channels, `s` their lengths along each axis. In `Truth`, `k` is the most objects in
any image of the batch; in `Objects`, the objects of all its images, and `n` their pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor


@dataclass(frozen=True)
class Truth:
    """Annotated objects of a batch."""

    labels: Int32[Tensor, "b *s"]  # 0 is background, objects of each image are 1, 2, …; gaps are allowed
    classes: Int[Tensor, "b k"]  # class of label i + 1, counted from 1; 0 if the image has fewer objects
    valid: Bool[Tensor, "b *s"]  # False for pixels that count neither as object nor as background
    # of frames of films: the label that each object, or the one that divided into it, has in the image before it in the
    # batch; 0 if it is not there
    earlier: Int[Tensor, "b k"] | None = None

    def of_image(self, place: int) -> Truth:
        """The truth of one image of the batch, for itself."""
        own = slice(place, place + 1)
        return Truth(self.labels[own], self.classes[own], self.valid[own])

    def class_map(self) -> Int[Tensor, "b *s"]:
        """Class of each pixel: 0 is background, -1 a pixel to leave out."""
        return torch.where(self.valid, self._of_label(self.classes), -1)

    def origins(self) -> Truth:
        """The same images with, as one object, all that comes from one object of the image before, under its label.

        What comes from no object of the image before is background.
        """
        assert self.earlier is not None
        came = self._of_label(self.earlier).to(self.labels.dtype)
        before = torch.where(self.valid, self.labels, 0).roll(1, 0)
        there = [torch.isin(*pair) for pair in zip(came, before, strict=True)]
        return Truth(came * torch.stack(there), self.classes, self.valid)

    def _of_label(self, values: Int[Tensor, "b k"]) -> Int[Tensor, "b *s"]:
        """The value of each pixel's object; 0 for background."""
        of_label = torch.cat([values.new_zeros(len(values), 1), values], 1).long()
        return of_label.gather(1, self.labels.flatten(1).long()).view(self.labels.shape)


@dataclass(frozen=True)
class Objects:
    """All objects of a batch, image by image; those without a valid pixel are left out."""

    owner: Int[Tensor, "b *s"]  # 1 + object, 0 for background, -1 for pixels to leave out
    image: Int[Tensor, " k"]  # image of each object
    label: Int[Tensor, " k"]  # in its image
    classes: Int[Tensor, " k"]  # class of each object, from 1
    weight: Float[Tensor, " k"]  # 1 / (objects of its image * images)
    pixels: Int[Tensor, " n"]  # the pixels that belong to objects, of all b * prod(s)
    of_pixel: Int[Tensor, " n"]  # object of each of these
    area: Float[Tensor, " k"]
    n_valid: Int[Tensor, " b"]

    @classmethod
    def of(cls, truth: Truth) -> Objects:
        """The objects of a batch."""
        b, k = len(truth.labels), truth.classes.shape[1]
        device = truth.labels.device
        labels = torch.where(truth.valid, truth.labels.long(), 0)
        first = torch.arange(b, device=device).view(-1, *[1] * (labels.ndim - 1)) * (k + 1)
        counts = torch.bincount((labels + first).flatten(), minlength=b * (k + 1)).view(b, k + 1)
        counts[:, 0] = 0
        present = counts > 0
        number = present.flatten().cumsum(0).view(b, k + 1) * present  # 1 + object of each (image, label)
        owner = torch.where(truth.valid, number.flatten()[(labels + first)], -1)
        image, label = torch.nonzero(present, as_tuple=True)
        per_image = present.sum(1)
        pixels = torch.nonzero(owner.flatten() > 0)[:, 0]
        return cls(
            owner=owner,
            image=image,
            label=label,
            classes=truth.classes[image, label - 1],
            weight=1 / (per_image[image] * b).float(),
            pixels=pixels,
            of_pixel=owner.flatten()[pixels] - 1,
            area=counts[present].float(),
            n_valid=truth.valid.flatten(1).sum(1),
        )

    def at_pixels(self, maps: Float[Tensor, "b c *s"]) -> Float[Tensor, "n c"]:
        """Values of the maps at the objects' pixels."""
        n = math.prod(maps.shape[2:])
        image, place = self.pixels // n, self.pixels % n
        return maps.flatten(2)[image, :, place]

    def mean(self, maps: Float[Tensor, "b c *s"]) -> Float[Tensor, "k c"]:
        """Mean of the maps over each object."""
        return self.mean_values(self.at_pixels(maps))

    def mean_values(self, values: Float[Tensor, "n *c"]) -> Float[Tensor, "k *c"]:
        """Mean of values given at the objects' pixels over each object."""
        total = values.new_zeros(len(self.image), *values.shape[1:]).index_add(0, self.of_pixel, values)
        return total / self.area.to(values.dtype).view(-1, *[1] * (values.ndim - 1))

    @property
    def alike(self) -> Float[Tensor, " n"]:
        """Weights of the pixels by which all objects count alike, each as much as one of mean area does without."""
        return (self.area.mean() / self.area)[self.of_pixel]

    def mean_over_images(self, values: Float[Tensor, " k"]) -> Float[Tensor, ""]:
        """Mean over the objects of each image, then over images; an image without objects counts as 0."""
        return (values * self.weight.to(values.dtype)).sum()

    def mean_over_pixels(self, values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Mean over the foreground pixels of each image, then over images; an image without any counts as 0."""
        b = len(self.owner)
        image = self.image[self.of_pixel]
        count = torch.bincount(image, minlength=b)
        total = values.new_zeros(b).index_add(0, image, values)
        return (total / count.clamp(min=1)).mean()

    def near(self, image: int, reach: float | None) -> tuple[Int[Tensor, " m"], Bool[Tensor, "m m"]]:
        """The objects of an image, and which of them lie near each other.

        Args:
            image: its place in the batch.
            reach: how far apart centres may be, in sums of the two objects' radii (those of discs, or
                balls, of their size): 1 for those that touch. None for any distance.
        """
        own = torch.nonzero(self.image == image)[:, 0]
        others = ~torch.eye(len(own), dtype=torch.bool, device=own.device)
        if reach is None or not len(own):
            return own, others
        inside = torch.nonzero(self.owner[image] > 0, as_tuple=True)
        object_of = self.owner[image][inside] - 1 - own[0]
        centre = torch.zeros(len(own), len(inside), device=own.device).index_add(
            0, object_of, torch.stack(inside, 1).float()
        )
        centre = centre / self.area[own, None]
        radius = (self.area[own] / torch.pi).sqrt()
        if len(inside) == 3:
            radius = (self.area[own] * 0.75 / torch.pi) ** (1 / 3)
        return own, others & ((centre[:, None] - centre).norm(dim=2) <= reach * (radius[:, None] + radius))
