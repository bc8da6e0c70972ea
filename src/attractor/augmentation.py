"""Random views of annotated images: crop, scale, turn, flip and intensity, on any device.

One affine grid serves image and labels: the image is sampled bilinearly, the labels by nearest neighbour.
Every draw comes from the generator that is passed in, so that (seed, epoch, index) decides all of it.

Volumes are turned within their planes, and seen in those views that their steps allow.

Shapes: `c` channels, `h` rows, `w` columns; `s` the lengths of an image along its axes, rows and columns, or of a
volume, planes, rows and columns; `t` those of the crop, `a` the number of axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor
from torch.nn import functional as F

from attractor.errors import InputError, check_range


@dataclass(frozen=True)
class View:
    """One way of seeing an image or volume: its axes are exchanged, it is upended, flipped left to right, and turned.

    Images have eight views, for which the last two suffice.
    """

    flipped: bool
    quarter_turns: int  # 0 to 3, counter-clockwise as displayed
    upended: bool = False  # of a volume: the last plane comes first
    first_axis: int = 0  # of a volume: the axis that becomes that of the planes; the other two stay in cyclic order

    def apply(self, x: Tensor) -> Tensor:
        """The image or map, (…, h, w) or (…, d, h, w), seen this way."""
        if self.first_axis:
            x = x.movedim((-3, -2, -1), _cyclic(-self.first_axis))
        x = x.flip(-3) if self.upended else x
        return torch.rot90(x.flip(-1) if self.flipped else x, self.quarter_turns, (-2, -1))

    def undo(self, x: Tensor) -> Tensor:
        """The image or map that this is a view of."""
        x = torch.rot90(x, -self.quarter_turns, (-2, -1))
        x = x.flip(-1) if self.flipped else x
        x = x.flip(-3) if self.upended else x
        return x.movedim((-3, -2, -1), _cyclic(self.first_axis)) if self.first_axis else x

    def axes(self, n_axes: int) -> tuple[tuple[int, int], ...]:
        """For each axis of the image, the axis of the view along which it lies, and 1, or -1 if it runs backwards."""
        row, column = n_axes - 2, n_axes - 1
        turned = {0: ((row, 1), (column, 1)), 1: ((column, 1), (row, -1))}[self.quarter_turns % 2]
        sign = -1 if self.quarter_turns >= 2 else 1
        (first, first_sign), (last, last_sign) = turned
        plane = [(first, sign * first_sign), (last, sign * last_sign * (-1 if self.flipped else 1))]
        if n_axes == 2:
            return tuple(plane)
        of_view = [(0, -1 if self.upended else 1), *plane]
        return tuple(of_view[(axis - self.first_axis) % 3] for axis in range(3))


def _cyclic(shift: int) -> tuple[int, int, int]:
    """Where the last three axes go if each moves on by so many places, the last ones to the front."""
    first, second, third = ((axis + shift) % 3 - 3 for axis in range(3))
    return first, second, third


VIEWS = tuple(View(flipped, turns) for flipped in (False, True) for turns in range(4))
UPRIGHT_VIEWS = tuple(view for view in VIEWS if view.quarter_turns == 0)


def views_of(spacing: Sequence[float]) -> tuple[View, ...]:
    """All views in which each axis lies along one of equal step: 8 of an image, and 8, 16 or 48 of a volume.

    Args:
        spacing: length of a step along each axis: two for images, whose pixels are square, or three for volumes.
    """
    if len(spacing) == 2:
        return VIEWS
    every = (
        View(view.flipped, view.quarter_turns, upended, first_axis)
        for first_axis in range(3)
        for upended in (False, True)
        for view in VIEWS
    )
    return tuple(
        view
        for view in every
        if all(math.isclose(spacing[own], spacing[axis]) for own, (axis, _) in enumerate(view.axes(3)))
    )


SMALLEST_SCALE, LARGEST_SCALE = 0.01, 100
RANGES: dict[str, tuple[float, float]] = {  # lowest and highest value of each setting that is a number
    "stretch": (1, 10),
    "even_sizes": (1, 10),
    "brightness": (0, 10),
    "contrast": (0, 10),
    "gamma": (0, 10),
    "colour": (0, 10),
    "noise": (0, 10),
    "blur": (0, 100),
    "invert": (0, 1),
    "stain": (0, 10),
    "texture": (0, 10),
    "halo": (0, 1),
    "bit_depth": (1, 8),
    "paste": (0, 1),
}
FINEST_PATCH, COARSEST_PATCH = 2.0, 16.0  # pixels: see `texture`
NARROWEST_HALO, WIDEST_HALO = 4.0, 16.0  # pixels: standard deviation of the blur, see `halo`
FULL_DEPTH = 8.0  # bits: see `bit_depth`
UPRIGHT_ANGLE = math.radians(5)  # how far off the horizontal a photograph may be

# an image, its labels, and the pixels that count
Frame: TypeAlias = tuple[Float[Tensor, "c *s"], Int32[Tensor, "*s"], Bool[Tensor, "*s"]]
FrameCrop: TypeAlias = tuple[Float[Tensor, "c *t"], Int32[Tensor, "*t"], Bool[Tensor, "*t"]]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a training crop may differ from the annotated image; values are drawn evenly from each range."""

    scale: tuple[float, float] = (0.8, 1.25)  # magnification; drawn evenly in its logarithm
    # each image is also reduced and magnified to the sizes that objects have in the others, by up to this factor
    even_sizes: float = 1.0
    stretch: float = 1.1  # the two axes are magnified differently by up to this factor
    rotate: bool = True  # by any angle; False leaves quarter turns
    flip: bool = True  # flips and quarter turns
    upright: bool = False  # for photographs: mirrored, but never upside down, and turned by 5 degrees at most
    brightness: float = 0.1  # added, in units of the normalised range
    contrast: float = 0.3  # factor between 1 - this and 1 + this
    gamma: float = 0.3  # exponent between 1 / (1 + this) and 1 + this
    colour: float = 0.1  # brightness and contrast of each channel on its own
    noise: float = 0.05  # largest standard deviation of Gaussian noise
    blur: float = 1.0  # largest standard deviation of Gaussian blur in pixels, in half of the crops
    invert: float = 0.0  # share of the crops whose intensities are inverted
    # in half of the crops, the intensity is multiplied by a patchy factor: largest deviation of its logarithm
    texture: float = 0.0
    # in half of the crops, as in phase contrast, what is bright or dark shades its surroundings and its own middle: up
    # to this share of the blurred image is taken away
    halo: float = 0.0
    bit_depth: float = 8.0  # below 8, half of the crops have intensities of between this many bits and 8
    stain: float = 0.0  # amount of haematoxylin, eosin and the rest in colour images: up to this share more or less
    paste: float = 0.0  # share of the crops that get objects of another crop, too

    def __post_init__(self) -> None:
        """Refuse impossible values, naming the setting."""
        low, high = self.scale
        if not SMALLEST_SCALE <= low <= high <= LARGEST_SCALE:
            raise InputError(
                f"augmentation.scale is {self.scale}; it is a range of magnifications, the lower one first, between "
                f"{SMALLEST_SCALE} and {LARGEST_SCALE}."
            )
        for name, (least, most) in RANGES.items():
            check_range(f"augmentation.{name}", getattr(self, name), least, most)

    def between(self, least: float, most: float) -> Augmentation:
        """The same, but magnified by as little as `least` and as much as `most` times what `scale` says."""
        low, high = self.scale
        return replace(self, scale=(max(SMALLEST_SCALE, low * least), min(LARGEST_SCALE, high * most)))

    def crop(
        self,
        image: Float[Tensor, "c *s"],
        labels: Int32[Tensor, "*s"],
        valid: Bool[Tensor, "*s"],
        centre: tuple[float, ...],
        size: int | tuple[int, ...],
        generator: torch.Generator,
        *,
        spacing: Sequence[float] = (1.0, 1.0),
    ) -> tuple[Float[Tensor, "c *t"], Int32[Tensor, "*t"], Bool[Tensor, "*t"]]:
        """A crop of this size around `centre`, its place along each axis, warped and with its intensities changed.

        A crop that would reach beyond the image is moved into it; what still lies outside is reflected,
        and counts neither as object nor as background. Rows and columns of the crop are as many.

        Args:
            image: with its channels first.
            labels: of the same lengths.
            valid: pixels that count.
            centre: row and column; in a volume, plane, row and column.
            size: of the crop along each axis, or along all.
            generator: of random numbers.
            spacing: length of a step along each axis of a volume; it is turned only where steps are alike.
        """
        (crop,) = self.crop_alike([(image, labels, valid)], centre, size, generator, spacing=spacing)
        return crop

    def crop_alike(
        self,
        frames: Sequence[Frame],
        centre: tuple[float, ...],
        size: int | tuple[int, ...],
        generator: torch.Generator,
        *,
        spacing: Sequence[float] = (1.0, 1.0),
    ) -> list[FrameCrop]:
        """The same place in several frames of a film, all seen the same way; intensities differ from frame to frame.

        Args:
            frames: image, labels and pixels that count of each, all of one size.
            centre: as for `crop`, like the others.
            size: of the crops.
            generator: of random numbers.
            spacing: length of a step along each axis of a volume.
        """
        whole = frames[0][1].shape
        shape = (size,) * len(whole) if isinstance(size, int) else size
        matrix = self._matrix(generator)
        if len(shape) == 3:
            matrix = _of_volume(matrix, turns=math.isclose(spacing[1], spacing[2]))
        step = float(torch.linalg.det(matrix)) ** (1 / len(shape))  # of one pixel in the crop, in the image
        middle = tuple(_inside(c, n, side * step) for c, n, side in zip(centre, whole, shape, strict=True))
        crops = [_warp(*frame, middle, shape, matrix) for frame in frames]
        if self.flip:
            views = self._views(shape, spacing)
            view = views[_integer(len(views), generator)]
            crops = [(view.apply(image), view.apply(labels), view.apply(valid)) for image, labels, valid in crops]
        return [(self.intensity(image, generator), labels, valid) for image, labels, valid in crops]

    def _views(self, shape: tuple[int, ...], spacing: Sequence[float]) -> tuple[View, ...]:
        """The views in which a crop of this shape keeps its shape."""
        if self.upright:
            return UPRIGHT_VIEWS
        is_cube = len(set(shape)) == 1
        return tuple(view for view in views_of(spacing) if is_cube or not view.first_axis)

    def _matrix(self, generator: torch.Generator) -> Float[Tensor, "2 2"]:
        """Step in the image, as (row, column), for a step of one pixel in the crop."""
        low, high = (math.log(s) for s in self.scale)
        log_scale = low + (high - low) * _uniform(generator)
        log_stretch = math.log(self.stretch) * (_uniform(generator) - 0.5)
        turns = _uniform(generator) if self.rotate else 0.0
        angle = UPRIGHT_ANGLE * (2 * turns - 1) * self.rotate if self.upright else 2 * math.pi * turns
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return turn @ torch.diag(torch.tensor([-log_scale + log_stretch, -log_scale - log_stretch]).exp())

    def intensity(self, image: Float[Tensor, "c *s"], generator: torch.Generator) -> Float[Tensor, "c *s"]:
        """The image with its intensities changed; they are assumed to lie around 0 to 1."""
        c, ones = len(image), [1] * (image.ndim - 1)

        def draw(n: int, reach: float) -> Float[Tensor, "..."]:
            return ((2 * torch.rand(n, *ones, generator=generator) - 1) * reach).to(image.device)

        if self.stain and c == 3 and len(ones) == 2:
            image = _restained(image, draw(3, self.stain))
        gamma = (1 + self.gamma) ** draw(1, 1.0)
        image = torch.where(image > 0, image.clamp(min=1e-6) ** gamma, image)
        contrast = (1 + draw(1, self.contrast)) * (1 + draw(c, self.colour))
        image = (image - 0.5) * contrast + 0.5 + draw(1, self.brightness) + draw(c, self.colour)
        if self.texture and _uniform(generator) < 0.5:
            image = image * _patches(image, self.texture * _uniform(generator), generator)
        if self.halo and _uniform(generator) < 0.5:
            image = _with_halos(image, self.halo * _uniform(generator), generator)
        if _uniform(generator) < self.invert:
            image = 1 - image
        if self.blur and _uniform(generator) < 0.5:
            sigma = self.blur * _uniform(generator)
            image = _blurred(image.flatten(0, -3), sigma).view(image.shape)  # within planes
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        image = image + noise * (self.noise * _uniform(generator))
        if self.bit_depth < FULL_DEPTH and _uniform(generator) < 0.5:
            steps = 2 ** (FULL_DEPTH - (FULL_DEPTH - self.bit_depth) * _uniform(generator)) - 1
            image = (image * steps).round() / steps
        return image


def pasted(
    onto: FrameCrop, other: FrameCrop, n_objects: int, generator: torch.Generator
) -> tuple[FrameCrop, list[int]]:
    """A crop with some objects of another one, at their places; nothing that is annotated there is covered.

    Each object that lies on background alone is taken or left by chance. Its brightness is changed by what sets the
    backgrounds of the two crops apart, and its rim goes over into the picture within a pixel.

    Source: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR
    2021, where objects do cover others.

    Args:
        onto: image, labels and pixels that count; it stays as it is.
        other: of the same size.
        n_objects: labels that the first crop's image has; those of the objects pasted come after them.
        generator: of random numbers.

    Returns:
        The crop, and the label that each object pasted has in the other crop, in the order of its new labels.
    """
    (image, labels, valid), (of_other, found, counts) = onto, other
    numbers = torch.unique(found[(found > 0) & counts]).tolist()
    drawn = [number for number in numbers if _uniform(generator) < 0.5]
    free = (labels == 0) & valid
    whole = {number: found == number for number in drawn}
    taken = [number for number, own in whole.items() if bool((free & counts)[own].all())]
    if not taken:
        return onto, []
    labels = labels.clone()
    for new, number in enumerate(taken, n_objects + 1):
        labels[whole[number]] = new
    there = torch.stack([whole[number] for number in taken]).any(0).to(image.dtype)
    smooth = F.avg_pool2d if there.ndim == 2 else F.avg_pool3d
    share = torch.maximum(there, smooth(there[None, None], 3, stride=1, padding=1)[0, 0])
    change = _background(image, free) - _background(of_other, (found == 0) & counts)
    return (torch.lerp(image, of_other + change, share), labels, valid), taken


def _background(image: Float[Tensor, "c *s"], where: Bool[Tensor, "*s"]) -> Float[Tensor, "c *t"]:
    """The median of each channel over some pixels; 0 where there are none."""
    values = image[:, where]
    middle = values.median(1).values if values.shape[1] else values.new_zeros(len(image))
    return middle.view(-1, *[1] * where.ndim)


def _of_volume(matrix: Float[Tensor, "2 2"], *, turns: bool) -> Float[Tensor, "3 3"]:
    """The same step within planes, and as much larger or smaller across them."""
    scale = torch.linalg.det(matrix).sqrt()
    whole: Tensor = torch.eye(3) * scale
    if turns:
        whole[1:, 1:] = matrix
    return whole


def _warp(
    image: Float[Tensor, "c *s"],
    labels: Int32[Tensor, "*s"],
    valid: Bool[Tensor, "*s"],
    centre: tuple[float, ...],
    shape: tuple[int, ...],
    matrix: Float[Tensor, "a a"],
) -> tuple[Float[Tensor, "c *t"], Int32[Tensor, "*t"], Bool[Tensor, "*t"]]:
    """Sample image, labels and validity of the crop; no more of them is looked at than it shows."""
    along = [torch.arange(size) - (size - 1) / 2 for size in shape]
    steps = torch.stack(torch.meshgrid(*along, indexing="ij"), -1)  # (*t, a)
    place = (steps @ matrix.T + torch.tensor(centre, dtype=torch.float32)).to(image.device)  # in the image
    last = torch.tensor([n - 0.5 for n in labels.shape], device=place.device)
    outside = (place < -0.5).any(-1) | (place > last).any(-1)
    places = [_reflected(place[..., axis], n) for axis, n in enumerate(labels.shape)]
    spans = [_span(own, n) for own, n in zip(places, labels.shape, strict=True)]
    image, labels, valid = image[(slice(None), *spans)].float(), labels[tuple(spans)], valid[tuple(spans)]
    places = [own - span.start for own, span in zip(places, spans, strict=True)]
    scale = torch.tensor([2 / max(n - 1, 1) for n in reversed(labels.shape)], device=place.device)
    grid = torch.stack(places[::-1], -1) * scale - 1
    image = F.grid_sample(image[None], grid[None], align_corners=True, padding_mode="border")[0]
    nearest = tuple(own.round().long() for own in places)
    return image, labels[nearest], valid[nearest] & ~outside


def _span(place: Float[Tensor, "*t"], n: int) -> slice:
    """The pixels of a side of n between which these places lie."""
    first = int(place.min())
    return slice(first, min(int(place.max()) + 2, n))


def _reflected(place: Float[Tensor, "*t"], n: int) -> Float[Tensor, "*t"]:
    """Coordinates folded back into 0 … n - 1 at the outermost pixels."""
    if n == 1:
        return torch.zeros_like(place)
    place = place.abs() % (2 * (n - 1))
    return torch.minimum(place, 2 * (n - 1) - place)


def _inside(centre: float, n: int, size: float) -> float:
    """The centre moved so that a crop of `size` stays in 0 … n - 1; the middle where it cannot."""
    half = (size - 1) / 2
    return (n - 1) / 2 if n <= size else min(max(centre, half), n - 1 - half)


def _blurred(image: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    reach = max(1, math.ceil(3 * sigma))
    if sigma < 0.1 or min(image.shape[-2:]) <= reach:
        return image
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image.device) / sigma) ** 2)
    weights = weights / weights.sum()
    padded = F.pad(image[:, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, weights[None, None, None]), weights[None, None, :, None])[:, 0]


def _patches(image: Float[Tensor, "c *s"], deviation: float, generator: torch.Generator) -> Float[Tensor, "1 *s"]:
    """A factor around 1 that is the same for all channels, in patches of some 2 to 16 pixels across."""
    side = FINEST_PATCH * (COARSEST_PATCH / FINEST_PATCH) ** _uniform(generator)
    shape = [max(2, round(n / side)) for n in image.shape[1:]]
    field = torch.randn(1, 1, *shape, generator=generator)
    mode = "bicubic" if len(shape) == 2 else "trilinear"
    field = F.interpolate(field, image.shape[1:], mode=mode, align_corners=True)[0]
    return (deviation * field).exp().to(image.device)


def _with_halos(image: Float[Tensor, "c *s"], share: float, generator: torch.Generator) -> Float[Tensor, "c *s"]:
    """The image less a share of itself blurred within planes; its mean stays."""
    sigma = NARROWEST_HALO * (WIDEST_HALO / NARROWEST_HALO) ** _uniform(generator)
    sigma = min(sigma, (min(image.shape[-2:]) - 1) / 3)  # a small crop is reflected once
    around = _blurred(image.flatten(0, -3), sigma).view(image.shape)
    return image - share * (around - around.flatten(1).mean(1).view(-1, *[1] * (image.ndim - 1)))


def _restained(image: Float[Tensor, "3 h w"], change: Float[Tensor, "3 1 1"]) -> Float[Tensor, "3 h w"]:
    """The image with more or less of each stain; the light that passes falls exponentially with the amount of stain.

    Source: Ruifrok & Johnston 2001, by scikit-image's matrix; Tellez et al. 2018 for the augmentation.
    """
    from skimage.color import rgb_from_hed

    stains = torch.tensor(rgb_from_hed, dtype=image.dtype, device=image.device)  # a row for each stain
    density = -image.clamp(min=1e-3).log()
    amount = torch.einsum("chw,cs->shw", density, torch.linalg.inv(stains))
    changed = torch.einsum("shw,sc->chw", amount * change, stains)
    return torch.exp(-changed) * image  # the density is the former one and the change


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _integer(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
