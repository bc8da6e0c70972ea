"""How the scores of each metric are shown on a terminal: one function a metric, listed in `TABLES`.

A function takes the evaluation, the column that its groups come from (or None) and the names of the classes, and gives
the tables to print.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from attractor.evaluation import Evaluation
    from attractor.metrics.average_precision import Summary
    from attractor.metrics.average_recall import RecallSummary
    from attractor.metrics.bootstrap import Interval
    from attractor.metrics.cvppp import LeafSummary


def _precision_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """Groups by AP of images, and all images by what is pooled over them."""
    from attractor.evaluation import SHOWN

    def cells(summary: Summary) -> list[str]:
        at = [summary.by_image.at(summary.index(threshold)) for threshold in SHOWN]
        return [str(summary.n_truth), *(with_interval(value) for value in (*at, summary.mean_average_precision))]

    title = "AP by image, with 95 % intervals; mean AP is over IoU .50 to .95"
    columns = ["objects", *(f"AP {three(t)[:-1]}" for t in SHOWN), "mean AP"]
    return [_grouped(title, result, by, columns, cells), _pooled(result.summary)]


def _grouped(
    title: str, result: Evaluation, by: str | None, columns: Sequence[str], cells: Callable[[Any], list[str]]
) -> Table:
    """A row for all images and one for each group of them, with the cells that a summary gives."""
    table = plain_table(title)
    table.add_column(by or "", max_width=17, no_wrap=True)
    for name in ("images", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for name, summary in [
        ("all", result.summary),
        *((name or "(no value)", group) for name, group in result.groups.items()),
    ]:
        table.add_row(name, str(summary.n_images), *cells(summary))
    return table


def _pooled(summary: Summary) -> Table:
    """Scores of all images' counts together, a row for each threshold of IoU."""
    table = plain_table(f"Pooled over images: {summary.n_truth} true and {summary.n_found} found objects")
    columns = {
        "AP": summary.average_precision,
        "precision": summary.precision,
        "recall": summary.recall,
        "F1": summary.f1,
        "PQ": summary.panoptic_quality,
        "mean IoU": summary.mean_matched_iou,
    }
    for name in ("IoU", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    for k, threshold in enumerate(summary.thresholds):
        table.add_row(three(threshold)[:-1], *(with_interval(estimate.at(k)) for estimate in columns.values()))
    return table


def _leaf_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """Means over images of best Dice and of counts."""

    def cells(summary: LeafSummary) -> list[str]:
        return [
            with_interval(summary.symmetric_best_dice),
            count_with_interval(summary.difference_in_count),
            count_with_interval(summary.absolute_difference_in_count),
            with_interval(summary.foreground_dice),
        ]

    found = f"{result.summary.n_truth} true, {result.summary.n_found} found objects"
    title = f"Means over images, 95 % intervals; {found}"
    return [_grouped(title, result, by, ["SBD", "DiC", "|DiC|", "foreground Dice"], cells)]


def _recall_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """Groups by AR of images, and all images by recall of their objects together."""

    def cells(summary: RecallSummary) -> list[str]:
        at = [summary.by_image.at(k) for k in range(len(summary.limits))]
        return [str(summary.n_truth), *(with_interval(value) for value in at)]

    summary: RecallSummary = result.summary
    names = [f"AR({n})" for n in summary.limits]
    title = "AR(n) by image, over IoU .50 to .95, with 95 % intervals"
    pooled = plain_table(f"Pooled: {summary.n_truth} true objects, {summary.n_proposals} proposals")
    for name in names:
        pooled.add_column(name, justify="right", no_wrap=True)
    pooled.add_row(*(with_interval(summary.pooled.at(k)) for k in range(len(names))))
    return [_grouped(title, result, by, ["objects", *names], cells), pooled]


TABLES: dict[str, Callable[[Evaluation, str | None, Sequence[str]], list[Table]]] = {
    "average_precision": _precision_tables,
    "cvppp": _leaf_tables,
    "average_recall": _recall_tables,
}


def plain_table(title: str | None = None) -> Table:
    """A table without frames."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def with_interval(interval: Interval) -> str:
    """A score, and its interval below."""
    return f"{three(interval.value)}\n[dim]{three(interval.low)}-{three(interval.high)}[/]"


def count_with_interval(interval: Interval) -> str:
    """A number of objects, which may be below 0, and its interval below."""
    return f"{interval.value:.2f}\n[dim]{interval.low:.2f} to {interval.high:.2f}[/]"


def three(value: float) -> str:
    """A share in four characters, as in .812 and 1.00."""
    return f"{value:.3f}".removeprefix("0")[:4]
