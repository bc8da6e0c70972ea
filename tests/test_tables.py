"""Values as they are printed."""

import math

import pytest

from attractor.metrics.bootstrap import Interval
from attractor.metrics.metric import Amount, Table
from attractor.tables import as_text, shown

NOTHING = Interval(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Interval(0.5, 0.25, 1.0), ".500\n[dim].250-1.00[/]"),
        (NOTHING, "-"),
        (Amount(Interval(-1.5, -2.0, 0.25)), "-1.50\n[dim]-2.00 to 0.25[/]"),
        (Amount(NOTHING), "-"),
        (1234, "1234"),
        (0.5, ".500"),
        (math.nan, "-"),
    ],
)
def test_a_cell(cell, text):
    assert shown(cell) == text


def test_tables_as_text():
    first = Table(
        "Scores", {"all": {"images": 3, "AP": Interval(0.5, 0.25, 1.0)}, "even": {"images": 2, "AP": NOTHING}}, "kind"
    )
    lines = as_text([first, Table("By class", {"a [b] class": {"AP": 0.5}})]).splitlines()
    words = [line.split() for line in lines if line.strip("─ ")]
    assert words == [
        ["Scores"],
        ["kind", "images", "AP"],
        ["all", "3", ".500"],
        [".250-1.00"],
        ["even", "2", "-"],
        ["By", "class"],
        ["AP"],
        ["a", "[b]", "class", ".500"],
    ]
    assert not any(line.endswith(" ") for line in lines)


def test_a_long_name_is_cut_off_only_beside_many_values():
    many = {f"AP{k}": 0.5 for k in range(6)}
    assert "x" * 16 + "…" in as_text([Table("", {"x" * 30: many})])
    assert "x" * 30 in as_text([Table("", {"x" * 30: {"AP": 0.5}})])
