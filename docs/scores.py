"""Every score of a model on these pages, from the files that `attractor evaluate` wrote; none is typed by hand.

    attractor evaluate nuclei ../shared/data/nuclei/test --by modality --tta --out evaluation.json
    python docs/scores.py take nuclei evaluation.json
    python docs/scores.py write

`take` keeps the main values of an evaluation in docs/scores/NAME.json; NAME is that of a model that comes with the
package, or of a control. `write` puts tables of them between the lines `<!-- scores: NAME NAME … -->` and
`<!-- end of scores -->` of README.md and all pages, and the values of a model into its file, where `attractor models`
finds them. A test sees to it that pages and files agree.
"""

from __future__ import annotations

import argparse
import json
import re
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
BLOCK = re.compile(r"(<!-- scores: ([^>]+?) -->\n).*?(<!-- end of scores -->)", re.DOTALL)
# metric to its columns: name in the table, list in the summary, place in it
COLUMNS = {
    "average_precision": {
        "AP .50": ("by_image", 0),
        "AP .75": ("by_image", 5),
        "AP .90": ("by_image", 8),
        "mean AP": ("mean_average_precision", None),
    },
    "coco": {"AP": ("AP", None), "AP50": ("AP50", None), "AP75": ("AP75", None)},
}


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
    return {
        "metric": call["metric"],
        "with": [name for name in ("tta",) if call[name]],
        "rows": {group: _row(summary, call["metric"]) for group, summary in groups.items()},
    }


def _row(summary: dict, metric: str) -> dict:
    values = {name: _value(summary[key], place) for name, (key, place) in COLUMNS[metric].items()}
    return {"images": summary["n_images"], **values}


def _value(estimate: dict, place: int | None) -> list[float]:
    numbers = (estimate[name] for name in ("value", "low", "high"))
    return [round(n if place is None else n[place], 6) for n in numbers]


def table(names: list[str]) -> str:
    """A table in Markdown, with a row for each group and name; the best value of a group is bold."""
    digests = {name: _kept(name) for name in names}
    columns = list(COLUMNS[digests[names[0]]["metric"]])
    several = len(names) > 1
    lines = [["images", *([""] if several else []), *columns]]
    for group, first in digests[names[0]]["rows"].items():
        best = [max(digests[name]["rows"][group][column][0] for name in names) for column in columns]
        for name in names:
            row = digests[name]["rows"][group]
            cells = [
                _cell(row[column], several and row[column][0] == top) for column, top in zip(columns, best, strict=True)
            ]
            label = f"{group} ({first['images']})" if name == names[0] else ""
            who = f"`{name}`" if name in MODELS else name
            lines.append([label, *([who] if several else []), *cells])
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _kept(name: str) -> dict:
    path = SCORES / f"{name}.json"
    if not path.exists():
        raise InputError(
            f"{path}: is not there; evaluate it, and run python docs/scores.py take {name} evaluation.json."
        )
    return json.loads(path.read_text())


def _cell(values: list[float], bold: bool) -> str:
    value, low, high = map(share, values)
    return f"{f'**{value}**' if bold else value} ({low}\N{EN DASH}{high})"


def written(page: str) -> str:
    """The text of a page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + "\n" + table(found[2].split()) + "\n" + found[3], page)


def in_model(name: str) -> dict:
    """What the file of a model says of its scores on test images."""
    known = _kept(name)
    return {"metric": known["metric"], "with": known["with"], **known["rows"]["all"]}


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
