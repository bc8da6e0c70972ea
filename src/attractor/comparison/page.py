"""The page that shows a comparison, and the file of its numbers."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attractor.comparison.records import Compared, Comparison, headline_in
from attractor.comparison.verdict import FEWEST, MINUS
from attractor.errors import InputError
from attractor.evaluation import plain
from attractor.images import atomic
from attractor.metrics import METRICS
from attractor.metrics.bootstrap import Interval
from attractor.metrics.cvppp import CVPPP
from attractor.metrics.metric import Amount, Cell, Curve, Curved, Overview, Summary
from attractor.wording import counted, install, share

if TYPE_CHECKING:
    import jinja2


def as_json(comparison: Comparison) -> dict[str, object]:
    """All numbers as plain numbers and lists; of the pictures, only their names."""
    shown = [{"name": image.name, "lowest": image.lowest, "highest": image.highest} for image in comparison.shown]
    rest = plain(dataclasses.replace(comparison, shown=()))
    assert isinstance(rest, dict)  # as every record becomes
    return rest | {"shown": plain(shown)}


def write_page(comparison: Comparison, path: str | Path, *, command: str = "") -> None:
    """Write the one page that shows all of it; it needs no other file and no network.

    Args:
        comparison: what to show.
        path: the file, usually `.html`.
        command: the command line that made it, if any.

    Raises:
        InputError: if the file cannot be written, or jinja2 is not installed.
    """
    metric, columns = METRICS[comparison.metric], _columns(comparison.models)
    page = _template().render(
        comparison=comparison,
        first=comparison.models[0],
        metric=metric,
        command=command,
        made=datetime.datetime.fromisoformat(comparison.date).strftime("%d %B %Y, %H:%M").lstrip("0"),
        columns=columns,
        over=Counter(column.over for column in columns),
        curves=_curves(comparison.models),
        by_picture=_by_picture(comparison.models),
        in_groups=_in_groups(comparison),
        terms=dict(metric.terms) | dict(CVPPP.terms),
        fewest=FEWEST,
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def check_page() -> None:
    """Check that a page can be made at all.

    Raises:
        InputError: if jinja2 is not installed.
    """
    _template()


# --- the table of scores ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A column of the table of scores, a cell for each model."""

    over: str  # heading shared with its neighbours
    heading: str
    values: tuple[str, ...]
    intervals: tuple[str, ...]
    is_best: tuple[bool, ...]


def _columns(models: Sequence[Compared]) -> list[_Column]:
    """The metric's main values, and beside them counts and best Dice if the metric does not give these itself."""
    columns: dict[str, _Column] = {}
    for summaries in ([model.summary for model in models], [model.leaves for model in models]):
        for over, heading, cells in _cells(summaries):
            if heading not in columns and (column := _column(over, heading, cells)) is not None:
                columns[heading] = column
    return list(columns.values())


def _cells(summaries: Sequence[Summary]) -> list[tuple[str, str, list[Cell]]]:
    """Each heading of the overviews, with the heading above it and the cell of each model."""
    overviews: list[Sequence[Overview]] = [summary.overviews() for summary in summaries]
    return [
        (first.title, heading, [own[place].row[heading] for own in overviews])
        for place, first in enumerate(overviews[0])
        for heading in first.row
    ]


def _column(over: str, heading: str, cells: Sequence[Cell]) -> _Column | None:
    """The cells as they are printed; None if they have no interval, as for the number of true objects."""
    shares = [cell for cell in cells if isinstance(cell, Interval)]
    amounts = [cell.interval for cell in cells if isinstance(cell, Amount)]
    if shares:
        values = tuple(share(cell.value) for cell in shares)
        known = [(cell.value, text) for cell, text in zip(shares, values, strict=True) if not math.isnan(cell.value)]
        best = max(known)[1] if known else ""
        intervals = tuple(_interval(cell) for cell in shares)
    elif amounts:
        sign = "+" if any(cell.low < 0 for cell in amounts) else ""
        values = tuple(_signed(f"{cell.value:{sign}.2f}") for cell in amounts)
        best = min(zip(amounts, values, strict=True), key=lambda cell: abs(cell[0].value))[1]
        intervals = tuple(_signed(f"{cell.low:{sign}.2f} to {cell.high:{sign}.2f}") for cell in amounts)
    else:
        return None
    return _Column(over, heading, values, intervals, _is(best, values))


def _is(best: str, values: Sequence[str]) -> tuple[bool, ...]:
    """Which values are the best as printed; none if all are equal."""
    return tuple(value == best and len(set(values)) > 1 for value in values)


# --- what is plotted --------------------------------------------------------------------------------------------------


def _curves(models: Sequence[Compared]) -> list[Curve]:
    """The curve of each model, if the metric has curves."""
    return [model.summary.curve() for model in models if isinstance(model.summary, Curved)]


def _by_picture(models: Sequence[Compared]) -> list[tuple[str, list[float]]]:
    """Each image with every model's headline, from hard to easy for the first model; only images that can be scored."""
    names = [image.name for image in models[0].images]
    values = zip(*([image.value for image in model.images] for model in models), strict=True)
    known = [(name, list(own)) for name, own in zip(names, values, strict=True) if not any(map(math.isnan, own))]
    return sorted(known, key=lambda image: image[1])


def _in_groups(comparison: Comparison) -> Mapping[str, list[Interval]]:
    """The headline of every model in each group of images."""
    return {
        group: [headline_in(model.groups[group], comparison.headline) for model in comparison.models]
        for group in comparison.models[0].groups
    }


# --- the template -----------------------------------------------------------------------------------------------------


def _template() -> jinja2.Template:
    """The page with gaps to fill."""
    try:
        import jinja2  # torch brings it along, but does not promise to
    except ImportError as error:
        raise InputError(f"The page needs jinja2, which is not installed. {install('report')}") from error
    gaps = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    gaps.filters |= {
        "share": share,
        "interval": _interval,
        "seconds": _seconds,
        "bytes": _bytes,
        "counted": counted,
        "place": _place,
        "up": _up,
        "inline": _inline,
    }
    return gaps.get_template("page.html")


def _up(value: float | int) -> float:
    """Where a share stands in a plot."""
    return round(270.0 - 260 * float(value), 1)


def _inline(jpeg: bytes) -> str:
    """A picture as a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _place(value: float | int) -> str:
    """A place on a curve: a threshold, or a whole number."""
    return f"{value:g}".removeprefix("0")


def _interval(interval: Interval) -> str:
    """Both ends of an interval of shares."""
    return f"{share(interval.low)}\N{EN DASH}{share(interval.high)}"


def _signed(text: str) -> str:
    """Numbers with a typographic minus sign."""
    return text.replace("-", MINUS)


def _seconds(value: float) -> str:
    """A time in milliseconds or seconds, to about three digits."""
    return f"{1000 * value:.0f} ms" if value < 0.9995 else f"{value:.1f} s"


def _bytes(value: int) -> str:
    return f"{value / 1e6:.1f} MB" if value < 1e8 else f"{value / 1e9:.2f} GB"
