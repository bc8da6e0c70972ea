"""Every score of a model on these pages, from the files that `attractor evaluate` wrote; none is typed by hand.

    attractor evaluate nuclei ../shared/data/nuclei/test --by modality --tta --out evaluation.json
    python docs/scores.py take nuclei evaluation.json
    python docs/scores.py write

`take` keeps the main values of an evaluation in docs/scores/NAME.json; NAME is that of a model that comes with the
package, or of a control. A model that is measured in several ways has further files, such as `nuclei.counts`: what is
after the dot is not shown. `write` puts tables of them between the lines `<!-- scores: NAME NAME … -->` and
`<!-- end of scores -->` of README.md and all pages. `scores of classes: NAME` gives a row for each class, and `scores
of all: NAME NAME …` leaves groups of images out. The values of a model go into its file, where `attractor models`
finds them. A test sees to it that pages and files agree.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import safetensors.torch

from attractor.description import encoded, read_description
from attractor.errors import InputError
from attractor.weights import MODELS
from attractor.wording import share

DOCS = Path(__file__).parent
SCORES = DOCS / "scores"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"(<!-- scores( of classes| of all)?: ([^>]+?) -->\n).*?(<!-- end of scores -->)", re.DOTALL)
# metric to its columns: name in the table, list in the summary, place in it
COLUMNS = {
    "average_precision": {
        "AP .50": ("by_image", 0),
        "AP .75": ("by_image", 5),
        "AP .90": ("by_image", 8),
        "mean AP": ("mean_average_precision", None),
    },
    "coco": {"AP": ("AP", None), "AP50": ("AP50", None), "AP75": ("AP75", None)},
    "cvppp": {
        "SBD": ("symmetric_best_dice", None),
        "DiC": ("difference_in_count", None),
        "|DiC|": ("absolute_difference_in_count", None),
    },
}
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
AMOUNTS = ("DiC", "|DiC|")  # columns that are numbers of objects, best near 0; all others are shares


def digest(evaluation: dict) -> dict:
    """The main values of an evaluation: for all images and for each group, how many there are and [value, low, high].

    Raises:
        InputError: if it is by a metric that the pages have no table for.
    """
    call = evaluation["call"]
    if call["metric"] not in COLUMNS:
        raise InputError(
            f"There is no table for the metric {call['metric']}; there are tables for {', '.join(COLUMNS)}."
        )
    groups = {"all": evaluation["summary"], **evaluation["groups"]}
    kept = {
        "metric": call["metric"],
        "with": _ways(call),
        "rows": {group: _row(summary, call["metric"]) for group, summary in groups.items()},
    }
    of_classes = evaluation["summary"].get("by_class", {})
    if len(of_classes) < 2:
        return kept
    columns = COLUMNS[call["metric"]]
    names = {number: call["class_names"][int(number) - 1] for number in of_classes}
    return kept | {
        "classes": {
            names[number]: {column: round(values[key], 6) for column, (key, _) in columns.items()}
            for number, values in of_classes.items()
        }
    }


def _ways(call: dict) -> list[str]:
    """How an evaluation differs from one of whole images as they are."""
    ways = ["tta"] if call["tta"] else []
    if call.get("crop"):
        ways.append(f"crops of {call['crop']}")
    if call.get("max_objects"):
        ways.append(f"at most {call['max_objects']} objects")
    if call.get("smallest"):
        ways.append(f"objects of {call['smallest']} pixels and more")
    return ways + (["classes ignored"] if call.get("ignore_classes") else [])


def _row(summary: dict, metric: str) -> dict:
    values = {name: _value(summary[key], place) for name, (key, place) in COLUMNS[metric].items()}
    return {"images": summary["n_images"], **values}


def _value(estimate: dict, place: int | None) -> list[float]:
    numbers = (estimate[name] for name in ("value", "low", "high"))
    return [round(n if place is None else n[place], 6) for n in numbers]


def table(names: list[str], *, groups: bool = True) -> str:
    """A table in Markdown, with a row for each name and each group of images or all; the best of a group is bold."""
    digests = {name: _kept(name) for name in names}
    columns = list(COLUMNS[digests[names[0]]["metric"]])
    several = len(names) > 1
    lines = [["images", *([""] if several else []), *columns]]
    for group, first in digests[names[0]]["rows"].items():
        if not groups and group != "all":
            continue
        rows = {name: digests[name]["rows"][group] for name in names}
        best = [min((row[column][0] for row in rows.values()), key=_badness(column)) for column in columns]
        for name, row in rows.items():
            cells = [
                _cell(column, row[column], several and row[column][0] == top)
                for column, top in zip(columns, best, strict=True)
            ]
            label = f"{group} ({first['images']})" if name == names[0] else ""
            lines.append([label, *([_shown(name)] if several else []), *cells])
    return _markdown(lines)


def table_of_classes(name: str) -> str:
    """A table in Markdown of one evaluation: the mean over classes, then each class, the best first."""
    kept = _kept(name)
    columns = list(COLUMNS[kept["metric"]])
    mean = [_cell(column, kept["rows"]["all"][column], False) for column in columns]
    lines = [["class", *columns], ["mean", *mean]]
    for own, values in sorted(kept["classes"].items(), key=lambda item: -item[1][columns[0]]):
        lines.append([own, *(share(values[column]) for column in columns)])
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    """Lines of cells, the first of which are headings."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    escaped.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _badness(column: str) -> Callable[[float], float]:
    """What is least for the best value of a column."""
    return abs if column in AMOUNTS else lambda value: -value


def _shown(name: str) -> str:
    """What a row is called: the name up to a dot, as code if it is that of a model."""
    own = name.split(".")[0]
    return f"`{own}`" if own in MODELS else own


def _kept(name: str) -> dict:
    path = SCORES / f"{name}.json"
    if not path.exists():
        raise InputError(
            f"{path}: is not there; evaluate it, and run python docs/scores.py take {name} evaluation.json."
        )
    return json.loads(path.read_text())


def _cell(column: str, values: list[float], bold: bool) -> str:
    if column in AMOUNTS:
        value, low, high = (f"{number:.2f}".replace("-", MINUS) for number in values)
        between = " to " if min(values) < 0 else DASH
    else:
        value, low, high = map(share, values)
        between = DASH
    return f"{f'**{value}**' if bold else value} ({low}{between}{high})"


def written(page: str) -> str:
    """The text of a page with its tables made anew."""

    def anew(found: re.Match[str]) -> str:
        opening, kind, names, closing = found.groups()
        of_classes = kind == " of classes"
        made = table_of_classes(names.strip()) if of_classes else table(names.split(), groups=not kind)
        return f"{opening}\n{made}\n{closing}"

    return BLOCK.sub(anew, page)


def in_model(name: str) -> dict:
    """What the file of a model says of its scores on test images."""
    known = _kept(name)
    row = {column: value for column, value in known["rows"]["all"].items() if column != "DiC"}  # |DiC| tells enough
    return {"metric": known["metric"], "with": known["with"], **row}


def write() -> None:
    """Write the tables of all pages, and the scores into the models' files."""
    for path in PAGES:
        before = path.read_text()
        if (after := written(before)) != before:
            path.write_text(after)
    for name, path in MODELS.items():
        description = read_description(path)
        if (SCORES / f"{name}.json").exists() and description.scores.get("test") != in_model(name):
            others = {kind: values for kind, values in description.scores.items() if not kind.startswith("test")}
            described = replace(description, scores=others | {"test": in_model(name)})
            path.write_bytes(
                safetensors.torch.save(safetensors.torch.load_file(path), {"attractor": encoded(described)})
            )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    take = actions.add_parser("take", help="keep the main values of an evaluation")
    take.add_argument("name")
    take.add_argument("evaluation", type=Path)
    actions.add_parser("write", help="write the pages' tables and the models' files")
    given = parser.parse_args()
    try:
        if given.action == "write":
            return write()
        kept = digest(json.loads(given.evaluation.read_text()))
    except InputError as error:
        parser.error(str(error))
    SCORES.mkdir(exist_ok=True)
    (SCORES / f"{given.name}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
