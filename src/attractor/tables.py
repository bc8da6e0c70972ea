"""Tables of scores as people read them: on a terminal, or as plain text."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attractor.metrics.bootstrap import Interval
from attractor.metrics.metric import Amount, Cell
from attractor.metrics.metric import Table as Values
from attractor.wording import share

WIDTH = 100  # of plain text, in characters
MANY = 4  # columns: beside more than this there is no room for long row names, which are then cut off


def as_text(tables: Iterable[Values]) -> str:
    """The tables, one below the other, as plain text."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        for table in tables:
            console.print(rendered(table))
    lines = (line.rstrip() for line in capture.get().splitlines())
    return "\n".join(lines).strip("\n")


def rendered(values: Values) -> Table:
    """A table of values, each with its interval below it."""
    table = plain_table(escape(values.title))
    headings = tuple(next(iter(values.rows.values()), {}))
    if len(headings) > MANY:
        table.add_column(escape(values.heading), max_width=17, no_wrap=True)
    else:
        table.add_column(escape(values.heading), overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in values.rows.items():
        table.add_row(escape(name), *map(shown, row.values()))
    return table


def plain_table(title: str | None = None) -> Table:
    """A table without frames."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def shown(cell: Cell) -> str:
    """A value, and its interval below it; a dash if there is nothing to score."""
    if isinstance(cell, Interval):
        return share(cell.value) + _below(share(cell.low), share(cell.high), "-") if _is_known(cell) else "-"
    if isinstance(cell, Amount):
        interval = cell.interval
        ends = _below(f"{interval.low:.2f}", f"{interval.high:.2f}", " to ")
        return f"{interval.value:.2f}{ends}" if _is_known(interval) else "-"
    return str(cell) if isinstance(cell, int) else share(cell)


def _is_known(interval: Interval) -> bool:
    return not math.isnan(interval.value)


def _below(low: str, high: str, between: str) -> str:
    """Both ends of an interval on a line of their own."""
    return f"\n[dim]{low}{between}{high}[/]"
