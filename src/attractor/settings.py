"""How to train: the numbers of a run, checked as soon as they are given, even on machines that cannot train."""

from __future__ import annotations

from dataclasses import dataclass

from attractor.errors import InputError, check_choice, check_range
from attractor.prediction.engines import DTYPES
from attractor.tuning import headline_of

SCHEDULES = ("polynomial", "cosine")
OPTIMIZERS = ("adam", "adamw")
RANGES: dict[str, tuple[float, float]] = {  # lowest and highest value of each setting that is a number
    "epochs": (0, 1_000_000),
    "crops_per_epoch": (1, 100_000_000),
    "crop_size": (8, 8192),
    "crop_depth": (0, 8192),
    "batch_size": (1, 65_536),
    "accumulate": (1, 65_536),
    "learning_rate": (0, 10),
    "warmup": (0, 1),
    "power": (0, 10),
    "weight_decay": (0, 10),
    "average": (0, 0.99999),
    "around_objects": (0, 1),
    "around_missed": (0, 1),
    "validate_every": (1, 1_000_000),
    "few_objects": (0, 1_000_000_000),
    "patience": (0, 1_000_000),
    "minutes": (0, 1_000_000),
    "workers": (0, 256),
    "seed": (0, 2**32 - 1),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train; the defaults suit a few hundred images of small objects."""

    epochs: int = 30  # 0: as many as there is time for, which minutes says
    crops_per_epoch: int = 1600
    crop_size: int = 256  # side in pixels, a multiple of 8
    crop_depth: int = 0  # planes of the crops of volumes; 0: as many as crop_size says
    batch_size: int = 8  # of a step, on all devices together
    accumulate: int = 1  # parts in which a batch goes through the network, one after another, to save memory
    learning_rate: float = 1e-3  # its highest value, reached after warming up
    warmup: float = 0.03  # share of all steps during which the rate rises from 0
    schedule: str = "polynomial"  # by which it then falls to 0, or "cosine"
    power: float = 0.9  # exponent of the polynomial
    optimizer: str = "adam"  # or "adamw", whose weight decay does not go through the adaptive steps
    weight_decay: float = 1e-4
    average: float = 0.0  # the model kept is an exponential moving average of the weights with this decay, 0.999 say
    dtype: str = "auto"  # "float32", "bfloat16", or "auto": bfloat16 where the device computes in it
    around_objects: float = 0.8  # share of the crops that have an object near their middle
    around_missed: float = 0.0  # share of all crops that show an object which the model missed when it last looked
    even_classes: bool = False  # these objects are of each class equally often, however rare it is
    freeze_normalisation: bool = False  # keep the statistics of batch normalisation: for small batches of large crops
    balance: str = ""  # a column of images.csv whose values are drawn more evenly: see `image_weights`
    metric: str = "average_precision"  # chooses the best epoch and the thresholds; coco or cityscapes, for instance
    validate_every: int = 1  # in epochs; the last epoch is always validated
    few_objects: int = 100  # with fewer in the validation images, thresholds stay as training began with them
    patience: int = 0  # epochs without a better score after which training ends; 0: it never ends early
    minutes: float = 0.0  # training ends after this time, the schedule cut to fit; 0: after all epochs
    workers: int = 1  # processes that make crops while the network trains; the crops do not depend on their number
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values, naming the setting."""
        for name, (low, high) in RANGES.items():
            check_range(f"training.{name}", getattr(self, name), low, high)
        if not self.epochs and not self.minutes:
            raise InputError(
                "training.epochs is 0; it must be at least 1, or training.minutes must say how long to train."
            )
        if self.crop_size % 8:
            raise InputError(f"training.crop_size is {self.crop_size}; it must be a multiple of 8.")
        check_choice("training.dtype", self.dtype, DTYPES)
        check_choice("training.schedule", self.schedule, SCHEDULES)
        check_choice("training.optimizer", self.optimizer, OPTIMIZERS)
        if not self.learning_rate > 0:
            raise InputError("training.learning_rate is 0.0; it must be above 0.")
        try:
            headline_of(self.metric)
        except InputError as error:
            raise InputError(f"training.metric: {error}") from error
        if not self.steps_per_epoch:
            raise InputError(
                f"training.batch_size is {self.batch_size}, more than the {self.crops_per_epoch} crops of an epoch "
                "(training.crops_per_epoch); make it smaller."
            )

    def crop_shape(self, n_axes: int) -> tuple[int, ...]:
        """Sides of a crop: rows and columns; of a volume, planes first."""
        return (*(self.crop_depth or self.crop_size,) * (n_axes - 2), self.crop_size, self.crop_size)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.crops_per_epoch // self.batch_size
