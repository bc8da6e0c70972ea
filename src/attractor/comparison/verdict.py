"""Whether a model differs from another, in sentences."""

from __future__ import annotations

from attractor.comparison.records import Compared, Pairing
from attractor.metrics import Metric, cvppp
from attractor.metrics.bootstrap import Interval
from attractor.metrics.metric import Amount, Difference
from attractor.wording import share

FEWEST = 6  # images for a verdict: of two equal models, one wins on all of five images once in 16 times
MINUS = "\N{MINUS SIGN}"


def against_first(first: Compared, other: Compared, metric: Metric) -> Pairing:
    """The other model against the first, with the verdict."""
    difference = metric.paired_difference(
        *([image.scores for image in model.images if image.scores is not None] for model in (other, first))
    )
    leaves = cvppp.paired_difference([image.leaves for image in other.images], [image.leaves for image in first.images])
    sentences = [
        verdict_on_headline(first.name, other.name, metric.headline, difference),
        verdict_on_counts(leaves.absolute_difference_in_count, leaves.n_images),
        verdict_on_time(first.seconds, other.seconds),
    ]
    change = _change(difference, metric.headline)
    is_difference = difference.n_images >= FEWEST and _leaves_out_zero(change)
    return Pairing(first.name, other.name, difference, leaves, is_difference, " ".join(filter(None, sentences)))


def verdict_on_headline(first: str, other: str, headline: str, difference: Difference) -> str:
    """Whether one finds objects better than the other, in a sentence or two."""
    change, n = _change(difference, headline), difference.n_images
    intervals = (cell.interval if isinstance(cell, Amount) else cell for cell in difference.row().values())
    if not any(cell.low or cell.high for cell in intervals if isinstance(cell, Interval) and cell.low == cell.low):
        return f"{other} and {first} score the same on every picture."
    measured = f"its {headline} is {share(abs(change.value))} {'higher' if change.value > 0 else 'lower'}"
    interval = f"95 % interval of the difference {_signed(change.low)} to {_signed(change.high)}"
    if n < FEWEST:
        return f"Too few pictures ({n}) to say whether {other} differs from {first}: on these, {measured}."
    if _leaves_out_zero(change):
        word = "better" if change.value > 0 else "worse"
        return f"{other} is {word} than {first}: {measured} ({interval}); this is unlikely to be chance."
    return (
        f"No clear difference between {other} and {first}: {measured}, but the choice of pictures can explain that "
        f"({interval}, which includes 0)."
    )


def verdict_on_counts(difference: Interval, n_images: int) -> str:
    """Whether one counts better than the other, in a sentence; nothing if there are too few images."""
    if n_images < FEWEST:
        return ""
    if difference.low == difference.high == 0:
        return "On every picture their counts are equally far from the truth."
    interval = f"95 % interval {difference.low:+.2f} to {difference.high:+.2f}".replace("-", MINUS)
    if _leaves_out_zero(difference):
        word = "fewer" if difference.value < 0 else "more"
        return f"It miscounts {abs(difference.value):.2f} {word} objects per picture ({interval})."
    return f"No clear difference in counts ({interval} objects per picture)."


def verdict_on_time(first: float, other: float) -> str:
    """How long one takes compared with the other; times within a tenth of each other count as equal."""
    ratio = other / first if first > 0 else 1.0
    if 1 / 1.1 < ratio < 1.1:
        return "Both are about equally fast."
    return f"It takes {ratio:.1f} times as long." if ratio > 1 else f"It is {1 / ratio:.1f} times as fast."


def _change(difference: Difference, headline: str) -> Interval:
    change = difference.row()[headline]
    assert isinstance(change, Interval)  # a headline is a share
    return change


def _leaves_out_zero(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _signed(value: float) -> str:
    """A difference of shares with its sign, as in +.052."""
    return (MINUS if round(value, 3) < 0 else "+") + share(abs(value))
