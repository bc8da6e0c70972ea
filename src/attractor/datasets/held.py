"""A data set that is read once: measurements of each image are kept, and its pixels if there is room for all."""

from __future__ import annotations

from collections.abc import Sequence

from attractor.datasets.checking import statistics_of
from attractor.datasets.sample import Dataset, Sample
from attractor.datasets.splitting import Subset
from attractor.statistics import ObjectStatistics, joined

MOST_PIXELS = 1 << 28  # 2 to 4 GB of images with their labels


class Held:
    """A data set whose images have all been read and measured."""

    def __init__(
        self,
        dataset: Dataset,
        measured: Sequence[ObjectStatistics],
        channels: Sequence[int],
        samples: Sequence[Sample] | None,
        *,
        is_film: bool = False,
    ) -> None:
        """Keep what `hold` has read.

        Args:
            dataset: where the images are from.
            measured: the objects of each image.
            channels: how many each image has.
            samples: the images themselves; None if there are too many to hold.
            is_film: whether objects are known from one image to the next.
        """
        self.is_film = is_film
        self.source, self.measured, self.channels, self.samples = dataset, tuple(measured), tuple(channels), samples
        self.class_names, self.names, self.columns = dataset.class_names, dataset.names, dataset.columns

    def __len__(self) -> int:
        """Number of images."""
        return len(self.measured)

    def __getitem__(self, index: int) -> Sample:
        """One sample; it is read again only where there was no room to hold it."""
        return self.source[index] if self.samples is None else self.samples[index]

    @property
    def statistics(self) -> ObjectStatistics:
        """Sizes of all objects and images."""
        return joined(self.measured, len(self.class_names))

    def part(self, indices: Sequence[int]) -> Held:
        """The images at these indices, in this order."""
        samples = None if self.samples is None else [self.samples[index] for index in indices]
        measured, channels = [self.measured[i] for i in indices], [self.channels[i] for i in indices]
        return Held(Subset(self.source, indices), measured, channels, samples, is_film=self.is_film)


def hold(dataset: Dataset, most_pixels: int = MOST_PIXELS) -> Held:
    """Read every image of a data set once, and hold the images if they do not have too many pixels.

    Raises:
        InputError: if an image cannot be read.
    """
    measured, channels, n_pixels, is_film = [], [], 0, False
    samples: list[Sample] | None = []
    for index in range(len(dataset)):
        sample = dataset[index]
        measured.append(statistics_of(sample, len(dataset.class_names)))
        channels.append(sample.image.shape[-1])
        n_pixels += sample.labels.size
        is_film = is_film or sample.earlier is not None
        if n_pixels > most_pixels:
            samples = None
        if samples is not None:
            samples.append(sample)
    return Held(dataset, measured, channels, samples, is_film=is_film)
