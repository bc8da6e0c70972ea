"""How the scores of each metric are shown on a terminal: one function a metric, listed in `TABLES`.

A function takes the evaluation, the column that its groups come from (or None) and the names of the classes, and gives
the tables to print.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from attractor.wording import share

if TYPE_CHECKING:
    from attractor.evaluation import Evaluation
    from attractor.metrics.aji import AjiSummary
    from attractor.metrics.average_precision import Summary
    from attractor.metrics.average_recall import RecallSummary
    from attractor.metrics.bootstrap import Interval
    from attractor.metrics.boundary import BoundarySummary
    from attractor.metrics.cityscapes import CityscapesSummary, Precisions
    from attractor.metrics.coco import CocoSummary
    from attractor.metrics.cvppp import LeafSummary
    from attractor.metrics.panoptic import PanopticSummary
    from attractor.metrics.pascal_voc import ClassPrecision, VocSummary


def _precision_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """Groups by AP of images, and all images by what is pooled over them."""
    from attractor.evaluation import SHOWN

    def cells(summary: Summary) -> list[str]:
        at = [summary.by_image.at(summary.index(threshold)) for threshold in SHOWN]
        return [str(summary.n_truth), *(with_interval(value) for value in (*at, summary.mean_average_precision))]

    title = "AP by image, with 95 % intervals; mean AP is over IoU .50 to .95"
    columns = ["objects", *(f"AP {share(t)[:-1]}" for t in SHOWN), "mean AP"]
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
        table.add_row(share(threshold)[:-1], *(with_interval(estimate.at(k)) for estimate in columns.values()))
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


def _coco_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """The six precisions and six recalls, and AP by class."""

    def cells(summary: CocoSummary, rows: Sequence[str]) -> list[str]:
        return [with_interval(getattr(summary, row)) for row in rows]

    summary: CocoSummary = result.summary
    precisions = _grouped(
        f"COCO's AP of masks, 95 % intervals; {summary.n_truth} true, {summary.n_found} found objects",
        result,
        by,
        ["AP", "AP50", "AP75", "APs", "APm", "APl"],
        lambda summary: cells(summary, ["AP", "AP50", "AP75", "APs", "APm", "APl"]),
    )
    recalls = _grouped(
        "Average recall of 1, 10 and 100 objects an image and class",
        result,
        by,
        ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"],
        lambda summary: cells(summary, ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]),
    )
    rows = ("AP", "AP50", "AP75", "AR100")
    values = {number: [own[row] for row in rows] for number, own in summary.by_class.items()}
    return [precisions, recalls, *_by_class(values, rows, class_names)]


def _cityscapes_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """The four precisions, and the same by class."""

    def intervals(values: Precisions) -> list[Interval]:
        return [
            values.average_precision,
            values.average_precision_50,
            values.average_precision_100m,
            values.average_precision_50m,
        ]

    summary: CityscapesSummary = result.summary
    columns = ("AP", "AP50", "AP100m", "AP50m")
    means = _grouped(
        f"Cityscapes' AP, means over classes, 95 % intervals; {summary.n_truth} true, {summary.n_found} found objects",
        result,
        by,
        columns,
        lambda summary: [with_interval(value) for value in intervals(summary)],
    )
    values = {number: [value.value for value in intervals(own)] for number, own in summary.by_class.items()}
    return [means, *_by_class(values, columns, class_names)]


def _panoptic_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """The three qualities, PQ by image, and the qualities by class."""

    def cells(summary: PanopticSummary) -> list[str]:
        pooled = (summary.panoptic_quality, summary.segmentation_quality, summary.recognition_quality)
        return [str(summary.n_truth), *(with_interval(value) for value in (*pooled, summary.by_image))]

    summary: PanopticSummary = result.summary
    title = "Panoptic quality, means over classes, 95 % intervals; and by image"
    means = _grouped(title, result, by, ["objects", "PQ", "SQ", "RQ", "PQ by image"], cells)
    values = {
        number: [own.panoptic_quality.value, own.segmentation_quality.value, own.recognition_quality.value]
        for number, own in summary.by_class.items()
    }
    # a model may find classes that the data set has no name for
    names = [*class_names, *(f"class {n}" for n in range(len(class_names) + 1, max(values, default=0) + 1))]
    return [means, *_by_class(values, ("PQ", "SQ", "RQ"), names)]


def _aji_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """AJI and AJI+, means over images and pooled."""

    def cells(summary: AjiSummary) -> list[str]:
        values = (summary.aji, summary.aji_plus, summary.pooled_aji, summary.pooled_aji_plus)
        return [str(summary.n_truth), *(with_interval(value) for value in values)]

    title = "Aggregated Jaccard index, by image and pooled, 95 % intervals"
    return [_grouped(title, result, by, ["objects", "AJI", "AJI+", "pooled AJI", "pooled AJI+"], cells)]


def _boundary_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """Boundary F, precision and recall."""

    def cells(summary: BoundarySummary) -> list[str]:
        values = (summary.boundary_f, summary.precision, summary.recall)
        return [str(summary.n_truth), *(with_interval(value) for value in values)]

    title = "Boundaries within 0.75 % of the diagonal, by image, 95 % intervals"
    return [_grouped(title, result, by, ["objects", "F", "precision", "recall"], cells)]


def _voc_tables(result: Evaluation, by: str | None, class_names: Sequence[str]) -> list[Table]:
    """AP at three thresholds and over all of them, and the same by class."""
    shown = (0.5, 0.7, 0.9)

    def values(own: VocSummary | ClassPrecision) -> list[Interval]:
        return [*(own.average_precision.at(summary.index(threshold)) for threshold in shown), own.volume]

    def cells(summary: VocSummary) -> list[str]:
        return [str(summary.n_truth), *(with_interval(value) for value in values(summary))]

    summary: VocSummary = result.summary
    columns = [*(f"AP {share(t)[:-1]}" for t in shown), "AP vol"]
    title = "Pascal VOC's AP of masks, 95 % intervals; vol is over IoU .1 to .9"
    means = _grouped(title, result, by, ["objects", *columns], cells)
    by_class = {number: [value.value for value in values(own)] for number, own in summary.by_class.items()}
    return [means, *_by_class(by_class, columns, class_names)]


def _by_class(values: Mapping[int, Sequence[float]], columns: Sequence[str], class_names: Sequence[str]) -> list[Table]:
    """A row for each class that occurs; nothing where there is but one."""
    if len(class_names) < 2:
        return []
    table = plain_table("By class")
    table.add_column("", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for number, own in values.items():
        name = class_names[number - 1] if number <= len(class_names) else f"class {number}"
        table.add_row(name, *(share(value) for value in own))
    return [table]


TABLES: dict[str, Callable[[Evaluation, str | None, Sequence[str]], list[Table]]] = {
    "average_precision": _precision_tables,
    "cvppp": _leaf_tables,
    "average_recall": _recall_tables,
    "coco": _coco_tables,
    "cityscapes": _cityscapes_tables,
    "panoptic": _panoptic_tables,
    "aji": _aji_tables,
    "boundary": _boundary_tables,
    "pascal_voc": _voc_tables,
}


def plain_table(title: str | None = None) -> Table:
    """A table without frames."""
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )


def with_interval(interval: Interval) -> str:
    """A score, and its interval below; a dash where there is nothing to score."""
    if math.isnan(interval.value):
        return "-"
    return f"{share(interval.value)}\n[dim]{share(interval.low)}-{share(interval.high)}[/]"


def count_with_interval(interval: Interval) -> str:
    """A number of objects, which may be below 0, and its interval below."""
    return f"{interval.value:.2f}\n[dim]{interval.low:.2f} to {interval.high:.2f}[/]"
