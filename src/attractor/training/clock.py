"""The time of a training: how much is spent, and what that means for its schedule and its validations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

VALIDATION_SHARE = 0.1  # the most of the time of a run that time rules
AT_THE_END = 2  # as many validations as the tuning and scoring of the result take, on the same images


class Clock:
    """How much of a run's time is spent; part of it is set aside for the validations at its end."""

    def __init__(self, limit: float) -> None:
        self.limit, self.before = limit, 0.0  # seconds: of the run, 0 for no limit; spent before an interruption
        self.rules = False  # whether all epochs would take longer than that, so that time decides
        self.started: float | None = None
        self.told: float | None = None  # the share that is over, by another clock that decides
        self.last = self.validations = 0.0  # seconds: the last validation, and all of them
        self.more = 1.0  # how many times as many images the result is tuned and scored on
        self.reached = 0.0  # seconds: the limit at which no time was left for steps; an end is not taken back

    def start(self) -> None:
        """Begin to count, unless that has begun."""
        if self.started is None:
            self.started = time.monotonic()

    def spent(self) -> float:
        """Seconds of the run, with those before an interruption."""
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def used(self) -> float:
        """The share of the time for steps that is over, by this clock or the one that decides."""
        return self.measured() if self.told is None else self.told

    def measured(self) -> float:
        """The share of the time for steps that is over, by this clock."""
        aside = self.last * (1 + AT_THE_END * self.more)  # the last epoch's, and the tuning and scoring of the result
        aside = min(aside, self.limit / 2)
        return min(self.spent() / (self.limit - aside), 1.0) if self.limit else 0.0

    def share(self) -> float:
        """The share of the time for steps that is over, if time decides; else 0."""
        return self.used() if self.rules else 0.0

    def is_up(self) -> bool:
        """Whether no time is left for steps."""
        if self.used() >= 1:
            self.reached = self.limit
        return 0 < self.limit <= self.reached

    def allows_validation(self) -> bool:
        """Whether another validation keeps all of them together within their share of the time, if time decides."""
        return not self.rules or self.validations + self.last <= VALIDATION_SHARE * self.spent()

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Measure a validation."""
        begun = time.monotonic()
        yield
        self.last = time.monotonic() - begun
        self.validations += self.last
