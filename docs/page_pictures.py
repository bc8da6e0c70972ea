"""Makes the pictures of docs/correct.md: the page of `attractor correct`, used by a script in Chromium.

    python docs/page_pictures.py --data data/fibroblasts/train [--chromium /usr/bin/chromium]

It corrects parts of the two pictures that come with attractor. What training does is shown on parts of other images,
which the model does not know, and of which all objects are drawn by their annotations; it trains for four minutes.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import skimage.data
import tifffile
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from skimage.color import rgb2hed

from attractor.datasets import open_dataset
from attractor.datasets.polygons import rings
from attractor.demo import FOLDER
from attractor.images import read_image, write_image
from attractor.session import Session

IMAGES = Path(__file__).parent / "images"
SIDE = 256  # of the parts
SIDE_TAUGHT, TAUGHT = 384, 9  # side and number of those that are trained on
MINUTES = 4
PARTS = ("tools", "channels", "training")


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, type=Path, help="annotated images of cells, some of which are trained on"
    )
    parser.add_argument("--chromium", default=which("chromium"), help="the browser")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="which pictures to make")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch, sync_playwright() as runs:
        one, other = Path(scratch) / "one", Path(scratch) / "other"
        chromium = runs.chromium.launch(executable_path=given.chromium, args=["--no-sandbox", "--disable-gpu"])
        size = {"width": 1120, "height": 700}
        if "tools" in given.parts:
            parts_of_the_demo(one / "plate")
            with running("correct", one / "plate", "--out", one / "project") as address:
                take(chromium.new_page(viewport=size), address)
        if "channels" in given.parts:
            with running("serve", two_channels(Path(scratch))) as address:
                take_channels(chromium.new_page(viewport=size), address)
        if "training" in given.parts:
            outlines = parts_of(given.data, other / "plate")
            with running("correct", other / "plate", "--out", other / "project") as address:
                take_training(chromium.new_page(viewport=size), address, outlines)
        chromium.close()


def parts_of_the_demo(folder: Path) -> None:
    """Write the four corners of the pictures that come with attractor."""
    folder.mkdir(parents=True)
    for path in sorted((FOLDER / "images").iterdir()):
        image = read_image(path)
        rows, columns = image.shape[0] - SIDE, image.shape[1] - SIDE
        corners = sorted({(0, 0), (0, columns), (rows, 0), (rows, columns)})
        for number, (top, left) in enumerate(corners, 1):
            write_image(folder / f"{path.stem} {number}.png", image[top : top + SIDE, left : left + SIDE])


def two_channels(folder: Path) -> Path:
    """The folder of a session with a part of a section of colon, its two stains as channels."""
    picture = read_image(Path(skimage.data.__file__).parent / "ihc.png")[:SIDE, :SIDE]
    blue, _, brown = np.moveaxis(rgb2hed(picture), -1, 0)
    stains = np.stack([4000 * (stain - stain.min()) / np.ptp(stain) for stain in (blue, brown)]).astype(np.uint16)
    tifffile.imwrite(folder / "two stains.tif", stains, photometric="minisblack", metadata={"axes": "CYX"})
    Session.create(folder / "stains", [folder / "two stains.tif"]).close()
    return folder / "stains"


def parts_of(data: Path, folder: Path) -> dict[str, list[list[tuple[float, float]]]]:
    """Write parts of annotated images, and give the outlines of the objects in each, as (row, column)."""
    folder.mkdir(parents=True)
    images, outlines = open_dataset(data), {}
    for index in np.linspace(0, len(images) - 1, TAUGHT).round().astype(int):
        sample = images[int(index)]
        write_image(folder / f"{sample.name}.png", sample.image[:SIDE_TAUGHT, :SIDE_TAUGHT])
        labels = sample.labels[:SIDE_TAUGHT, :SIDE_TAUGHT]
        masks = [labels == label for label in np.unique(labels[labels > 0])]
        longest = [max((part[0] for part in rings(mask)), key=len) for mask in masks]
        outlines[sample.name] = [[(float(y), float(x)) for x, y in ring] for ring in longest]
    return outlines


@contextmanager
def running(*arguments: object) -> Iterator[str]:
    """The address that a command of attractor prints."""
    command = [sys.executable, "-m", "attractor", *map(str, arguments), "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield next(found.group() for line in process.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            process.terminate()


def take(page: Page, address: str) -> None:
    """Correct some objects, and keep a picture of each step."""
    page.goto(address)
    page.locator(".job.done").wait_for(timeout=120_000)
    page.locator("#images button", has_text="stained 1").click()
    keep(page, "open")
    rows = page.locator("#objects tr")
    rows.nth(0).click()
    keep(page, "choose")
    page.keyboard.press("x")
    keep(page, "delete")
    page.keyboard.press("z")
    page.locator('#objects tr[data-label="2"]').click()
    keep(page, None)
    page.keyboard.press("s")
    drag(page, [(-70, -60), (70, 60)], "split")
    page.keyboard.press("w")
    drag(page, around(0, 0, 78, 68), "redraw")  # the two halves become one again
    page.keyboard.press("d")
    drag(page, around(213, 128, 58, 45), "draw")
    page.keyboard.press("b")
    drag(page, [(60, 40), (80, 55), (95, 60)], "brush")
    page.keyboard.press("v")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    for _ in range(4):
        page.keyboard.press("r")
        page.wait_for_timeout(600)
    page.locator("#mode").select_option("filled")
    keep(page, "reviewed")
    page.locator("#images button", has_text="stained 1").click()
    page.emulate_media(color_scheme="dark")
    page.locator("#mode").select_option("outlines")
    keep(page, "dark")


def take_channels(page: Page, address: str) -> None:
    """Show two channels in their colours."""
    page.goto(address)
    page.locator("#channels[open]").wait_for()
    keep(page, "channels")


def take_training(page: Page, address: str, outlines: dict[str, list[list[tuple[float, float]]]]) -> None:
    """Draw all objects of most images, train, and keep pictures of what comes of it."""
    page.goto(address)
    page.locator(".job.done").wait_for(timeout=240_000)
    begin, token = address.split("/#token=")

    def ask(path: str, content: object = None) -> Any:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        data = None if content is None else json.dumps(content).encode()
        return json.load(urlopen(Request(f"{begin}/api/{path}", data, headers)))

    *learned, last = outlines
    for name in learned:
        labels = [one["label"] for one in ask(f"objects?name={name}")]
        todo: list[dict[str, object]] = [{"kind": "delete", "labels": labels}] if labels else []
        todo += [{"kind": "draw", "outline": outline} for outline in outlines[name]]
        for operation in [*todo, {"kind": "accept"}]:
            with suppress(HTTPError):  # an outline of a pixel or two
                ask("edits", {"operation": operation | {"image": name}, "who": "Ada"})
    page.locator("#images button", has_text=learned[0]).click()
    page.locator("#minutes").fill(str(MINUTES))
    page.get_by_role("button", name="Train").click()
    page.locator(".job svg polyline").nth(1).wait_for(state="attached", timeout=60_000 * MINUTES + 60_000)
    keep(page, "train")
    page.locator(".job.done .words").wait_for(timeout=60_000 * MINUTES + 240_000)
    page.locator("#images button", has_text=last).click()
    page.get_by_role("button", name="Segment", exact=True).click()
    page.locator(".job.done", has_text="Segment").nth(1).wait_for(timeout=120_000)
    keep(page, "round")
    page.get_by_role("button", name="Compare").click()
    keep(page, "compare")


def around(right: float, down: float, width: float, height: float) -> list[tuple[float, float]]:
    """An ellipse, from the middle of the image on, as it is drawn by hand."""
    angles = np.linspace(0, 2 * np.pi, 24)
    return [(right + width * float(np.cos(angle)), down + height * float(np.sin(angle))) for angle in angles]


def drag(page: Page, points: list[tuple[float, float]], name: str) -> None:
    """Draw on the image, from its middle on, and keep a picture before the button is let go."""
    box = page.locator("#viewer").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for number, (right, down) in enumerate(points):
        page.mouse.move(middle[0] + right, middle[1] + down, steps=8)
        if not number:
            page.mouse.down()
    keep(page, name)
    page.mouse.up()
    page.wait_for_timeout(500)


def keep(page: Page, name: str | None) -> None:
    """A picture of the page, once it has come to rest."""
    page.wait_for_timeout(1500)
    if name is not None:
        with Image.open(io.BytesIO(page.screenshot())) as shot:
            shot.convert("RGB").save(IMAGES / f"correct-{name}.jpg", quality=82)


if __name__ == "__main__":
    main()
