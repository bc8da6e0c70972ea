"""All benchmarks, each in a process of its own, and then one table of what they found.

    python -m benchmarks [PART ...] [--keep FOLDER] [--data FOLDER]

Every ratio is to the plain form on the same input in the same run. Numbers are kept as JSON, in build/bench by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Headline, headline_table, print_machine, print_table

PARTS = (
    "network",
    "grouping",
    "mean_shift",
    "methods",
    "loss",
    "training_step",
    "crops",
    "end_to_end",
    "large_images",
    "volumes",
    "scale",
    "start_up",
    "cityscapes_metric",
)


def main() -> int:
    """Run the parts; give 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", metavar="PART", nargs="*", default=PARTS, help=f"some of: {', '.join(PARTS)}")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, default=Path("build/bench"), help="where numbers go")
    parser.add_argument(
        "--data", metavar="FOLDER", type=Path, help="images for the part end_to_end, which draws some by default"
    )
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    if given.data is not None and "end_to_end" not in given.parts:
        parser.error("--data is for the part end_to_end, which is not among those given")
    given.keep.mkdir(parents=True, exist_ok=True)
    headlines, failed = [], []
    for part in given.parts:
        print(f"\n--- {part} ---", flush=True)
        file = given.keep / f"{part}.json"
        more = ["--data", str(given.data)] if part == "end_to_end" and given.data is not None else []
        call = [sys.executable, "-m", f"benchmarks.{part}", "--json", str(file), *more]
        if subprocess.run(call, check=False).returncode:
            failed.append(part)
            continue
        headlines += [Headline(**line) for line in json.loads(file.read_text())["headlines"]]
    print("\n--- all ---")
    print_machine()
    if headlines:
        print_table("Plain form against ours, one run", headline_table(headlines))
    print(f"\nAll numbers are in {given.keep}." + (f" Failed: {', '.join(failed)}." if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
