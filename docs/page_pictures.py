"""Makes the pictures of docs/correct.md: the page of `attractor correct`, used by a script in Chromium.

    python docs/page_pictures.py [--chromium /usr/bin/chromium]

It works on parts of the two pictures that come with attractor, and trains for a minute.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from attractor.demo import FOLDER
from attractor.images import read_image, write_image

IMAGES = Path(__file__).parent / "images"
SIDE = 256  # of the parts


def main() -> None:
    """Make all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chromium", default=which("chromium"), help="the browser")
    browser = parser.parse_args().chromium
    with TemporaryDirectory() as folder, sync_playwright() as runs:
        parts_of_the_demo(Path(folder) / "plate")
        chromium = runs.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        with correcting(Path(folder)) as address:
            take(chromium.new_page(viewport={"width": 1120, "height": 700}), address)
        chromium.close()


def parts_of_the_demo(folder: Path) -> None:
    """Write the four corners of the pictures that come with attractor."""
    folder.mkdir()
    for path in sorted((FOLDER / "images").iterdir()):
        image = read_image(path)
        rows, columns = image.shape[0] - SIDE, image.shape[1] - SIDE
        corners = sorted({(0, 0), (0, columns), (rows, 0), (rows, columns)})
        for number, (top, left) in enumerate(corners, 1):
            write_image(folder / f"{path.stem} {number}.png", image[top : top + SIDE, left : left + SIDE])


@contextmanager
def correcting(folder: Path) -> Iterator[str]:
    """The address of `attractor correct`, run in a folder."""
    command = [sys.executable, "-m", "attractor", "correct", "plate", "--port", "0", "--no-browser"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
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
    rows.nth(rows.count() - 1).click()
    keep(page, None)
    page.keyboard.press("s")
    drag(page, [(-70, -60), (70, 60)], "split")
    page.keyboard.press("d")
    drag(page, [(150, 60), (170, 100), (215, 110), (240, 70), (200, 45), (150, 60)], "draw")
    page.keyboard.press("b")
    drag(page, [(0, 0), (30, 25), (60, 30)], "brush")
    page.keyboard.press("v")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    for _ in range(4):
        page.keyboard.press("r")
        page.wait_for_timeout(600)
    page.locator("#mode").select_option("filled")
    keep(page, "reviewed")
    page.locator("#minutes").fill("1")
    page.get_by_role("button", name="Train").click()
    page.locator(".job progress").wait_for(timeout=60_000)
    page.wait_for_timeout(25_000)
    keep(page, "train")
    page.locator(".job.done .words").wait_for(timeout=240_000)
    keep(page, "round")
    page.emulate_media(color_scheme="dark")
    page.locator("#mode").select_option("outlines")
    keep(page, "dark")


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
