"""A process for jobs: it reads one from stdin as a line of JSON, and says how far it is in lines on stdout.

After some kinds of job it waits for the next line. It ends as soon as stdin does, so that no job outlives its server.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

from attractor.errors import InputError

if TYPE_CHECKING:
    from attractor.prediction.image import Segmenter

LOOKS = 2.0  # seconds between two looks at the logs of a training
NICE = 5  # by which these processes stand back behind the server, which has to answer at once
STAYS = ("look", "answer")  # kinds of job after which the process waits for another one


def main() -> int:
    """Do the job of the first line, and, if it is of a kind that stays, those of later lines.

    Gives 1 if a job that does not stay cannot be done, which the last line then says.
    """
    say, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the server, which ends its jobs
    if sys.platform != "win32":
        os.nice(NICE)
    lines: Queue[str] = Queue()
    threading.Thread(target=_listen, args=(lines,), daemon=True).start()

    def answer(**content: object) -> None:
        say.write(json.dumps(content) + "\n")
        say.flush()

    while True:
        job = json.loads(lines.get())
        code = 0
        try:
            {"segment": _segment, "train": _train, "look": _look, "answer": _answer}[job["kind"]](job, answer)
        except InputError as error:
            answer(error=str(error))
            code = 1
        if job["kind"] not in STAYS:
            return code


def _listen(lines: Queue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _look(job: Mapping[str, Any], answer: Any) -> None:
    """Whether a file is an image: it is decoded here, where neither a bomb nor a crash does harm."""
    from attractor.images import read_image
    from attractor.images.damage import at_most

    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (job["bytes"], job["bytes"]))
    try:
        with at_most(job["pixels"]):
            image = read_image(job["path"])
    except MemoryError as error:
        raise InputError("The image is too large to be opened here.") from error
    answer(height=image.shape[0], width=image.shape[1], channels=image.shape[2])


def _segment(job: Mapping[str, Any], answer: Any) -> None:
    """Find the objects of images, and write each result to a file that the server reads."""
    import numpy as np

    from attractor.images import read_image
    from attractor.model import Model
    from attractor.prediction.image import Segmenter

    segmenter = Segmenter(Model.load(job["model"]), device=job.get("device", "auto"), copies=False)
    for number, (name, path) in enumerate(job["images"], 1):
        try:
            found = segmenter.segment(
                read_image(path), tta=job.get("tta", False), object_size=job.get("object_size"), name=name
            )
        except InputError as error:
            answer(failed=name, words=str(error), progress=number / len(job["images"]))
            continue
        file = Path(job["out"]) / f"{number}.npz"
        np.savez(file, labels=found.labels, classes=found.classes, scores=found.scores)
        answer(found=name, file=str(file), progress=number / len(job["images"]))


def _answer(job: Mapping[str, Any], answer: Any) -> None:
    """Find the objects of one image, and write them to a file in one of the forms of `attractor segment`."""
    from attractor.images import pixel_size, read_image
    from attractor.prediction.result import Result
    from attractor.web.export import file_output

    segmenter, image = _segmenter(job["model"], job["device"]), read_image(job["path"])
    found = segmenter.segment(image, tta=job["tta"], object_size=job["object_size"], name=job["path"])
    output = file_output(job["form"], segmenter.class_names)
    result = Result(job["name"], image, found, segmenter.class_names, pixel_size(job["path"]), segmenter.is_ordered)
    Path(job["out"]).write_bytes(output.encode(result))
    answer(objects=len(found))


@lru_cache(maxsize=1)
def _segmenter(model: str, device: str) -> Segmenter:
    """The model that was used last stays."""
    from attractor.model import Model
    from attractor.prediction.image import Segmenter

    return Segmenter(Model.load(model), device=device, copies=False)


def _train(job: Mapping[str, Any], answer: Any) -> None:
    """A round of training."""
    from attractor.session.rounds import trained

    def begun(run: Path) -> None:
        threading.Thread(target=_watch, args=(run, job["minutes"], answer), daemon=True).start()

    result = trained(
        Path(job["folder"]),
        job["project"],
        start=job.get("start"),
        minutes=job["minutes"],
        device=job.get("device", "auto"),
        changes=job.get("changes", ()),
        begun=begun,
    )
    answer(round=result.as_json(), words=str(result), progress=1.0)


def _watch(run: Path, minutes: float, answer: Any) -> None:
    """Say how far a training is, and what its curves are."""
    begun, before = time.monotonic(), ""
    while True:
        time.sleep(LOOKS)  # a training tells nobody that its logs have grown
        share = min(0.99, (time.monotonic() - begun) / (60 * minutes))
        content: dict[str, object] = {"progress": share}
        curves = _curves(run)
        if any(curves.values()) and json.dumps(curves) != before:
            before, content["curves"] = json.dumps(curves), curves
        answer(**content)


def _curves(run: Path) -> dict[str, list[list[float]]]:
    """Loss and score against steps, from the logs of a training."""
    curves: dict[str, list[list[float]]] = {"loss": [], "validation": []}
    for file in run.glob("logs/csv/*/metrics.csv"):
        with file.open(newline="") as table:
            for row in csv.DictReader(table):
                for name, column in (("loss", "loss"), ("validation", "validation/mean")):
                    if row.get(column) and row.get("step"):
                        curves[name].append([float(row["step"]), float(row[column])])
    return curves


if __name__ == "__main__":
    sys.exit(main())
