"""The page of `attractor correct` in Chromium: a large image with many objects, and a session of many images.

`python -m benchmarks.page [--side 10000] [--objects 20000] [--images 3000] [--json FILE]`. Frames are those that the
browser asks to be drawn, without a GPU. Chromium and playwright must be installed: `apt-get install chromium`,
`pip install playwright`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
from scipy import ndimage

from attractor.images import write_image
from attractor.instances import Instances
from attractor.session import Session
from attractor.web.tiles import SIDE, levels
from benchmarks.harness import keep, milliseconds, options, picture_of_cells, print_machine, print_table

WINDOW = {"width": 1400, "height": 900}
CLICKS = 20
TILES = 200  # tiles of labels that are asked for one after another
SMALL = 64  # side of an image of the long list
PATIENCE = 120  # seconds
SETTLED = 0.3  # seconds between an outline that is seen and a click on it

SEEN = """() => {  // all tiles of the image, and outlines in each ninth of it
    const viewer = OpenSeadragon.getViewer(document.querySelector("#viewer")), item = viewer.world.getItemAt(0);
    if (!item?.getFullyLoaded()) return false;
    const canvas = document.querySelector("canvas.labels"), ratio = canvas.width / canvas.clientWidth;
    const at = (x, y) => viewer.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y)).times(ratio);
    const size = item.getContentSize(), a = at(0, 0), b = at(size.x, size.y), context = canvas.getContext("2d");
    const n = size.x > 1000 ? 3 : 1, w = (b.x - a.x) / n, h = (b.y - a.y) / n;
    for (let k = 0; k < n * n; k++) {
        const { data } = context.getImageData(a.x + (k % n) * w, a.y + Math.floor(k / n) * h, w, h);
        if (!data.some((value, place) => place % 4 === 3 && value)) return false;
    }
    return /^[1-9]/.test(document.querySelector("#count").textContent);
}"""

OUTLINED = """() => {  // all tiles of the image that are in view, and an outline in the middle
    if (!OpenSeadragon.getViewer(document.querySelector("#viewer")).world.getItemAt(0).getFullyLoaded()) return false;
    const canvas = document.querySelector("canvas.labels"), x = canvas.width / 2 - 20, y = canvas.height / 2 - 20;
    return canvas.getContext("2d").getImageData(x, y, 40, 40).data.some((value, n) => n % 4 === 3 && value);
}"""

FRAMES = """([way, seconds]) => new Promise((done) => {  // milliseconds between frames while the image moves
    const { viewport } = OpenSeadragon.getViewer(document.querySelector("#viewer"));
    const home = viewport.getHomeZoom(), one = viewport.imageToViewportZoom(1);
    const middle = new OpenSeadragon.Point(0.5, 0.5);
    const begun = performance.now(), times = [];
    let before = begun;
    const place = (share) => {
        if (way === "pan") {
            viewport.zoomTo(one, null, true);
            const angle = 2 * Math.PI * share;
            viewport.panTo(new OpenSeadragon.Point(0.5 + 0.3 * Math.cos(angle), 0.5 + 0.3 * Math.sin(angle)), true);
        } else {
            viewport.panTo(middle, true);
            viewport.zoomTo(home * (8 * one / home) ** (0.5 - 0.5 * Math.cos(2 * Math.PI * share)), middle, true);
        }
    };
    const frame = (now) => {
        times.push(now - before);
        before = now;
        const share = (now - begun) / (1000 * seconds);
        if (share >= 1) return done(times.slice(1));
        place(share);
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""

CLICKED = """(label) => {  // from letting go of the button until the object's row is chosen and drawn
    window.clicked = new Promise((done) => document.addEventListener("pointerup", (event) => {
        const look = () => {
            const row = document.querySelector("tr[aria-selected=true]");
            const passed = () => performance.now() - event.timeStamp;
            if (row?.dataset.label === String(label)) requestAnimationFrame(() => done(passed()));
            else if (passed() > 5000) done(NaN);
            else requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, { capture: true, once: true }));
}"""

ASKED = """() => performance.getEntriesByType("resource").filter((one) => one.name.includes("/api/labels"))
    .map((one) => one.responseEnd - one.requestStart)"""


class Finds:
    """In place of a model: bright discs."""

    class_names = ("cell",)

    def segment(self, image, *, name):
        """Every disc."""
        labels = np.empty(image.shape[:2], np.int32)
        n = ndimage.label(image[..., 0] > 100, output=labels)
        scores = np.random.default_rng(0).uniform(0.3, 1, n).astype(np.float32)
        return Instances(labels, np.ones(n, np.int32), scores)


@contextmanager
def serving(folder):
    """A server in a process of its own: the process, its address, and a way to ask it."""
    command = [sys.executable, "-m", "attractor", "serve", str(folder), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            address = re.search(r"http://\S+", process.stdout.readline()).group()
            base, token = address.split("#token=")

            def ask(path, **values):
                request = Request(f"{base}api/{path}?{urlencode(values)}", headers={"authorization": f"Bearer {token}"})
                begun = time.perf_counter()
                content = urlopen(request).read()
                return content, time.perf_counter() - begun

            yield process, address, ask
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def chromium():
    """A browser without a GPU."""
    from playwright.sync_api import sync_playwright

    path = which("chromium") or which("chromium-browser") or which("google-chrome")
    if path is None:
        sys.exit("There is no Chromium: apt-get install chromium.")
    with sync_playwright() as runs:
        browser = runs.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def opened(browser, address):
    """A page, and the seconds from its address until the image and its outlines are seen."""
    page = browser.new_context(viewport=WINDOW).new_page()
    begun = time.perf_counter()
    page.goto(address)
    until(page, SEEN)
    return page, time.perf_counter() - begun


def until(page, condition):
    """Wait until something is seen."""
    end = time.perf_counter() + PATIENCE
    while not page.evaluate(condition):
        if time.perf_counter() > end:
            sys.exit(f"Not seen within {PATIENCE} seconds: {condition}")
        time.sleep(0.02)


def frames(page, way, seconds):
    """One line on the frames of a flight."""
    times = np.array(page.evaluate(FRAMES, [way, seconds]))
    return {
        "frames a second": f"{1000 * len(times) / times.sum():.1f}",
        **{f"{name} ms": f"{value:.1f}" for name, value in zip(("median", "p95", "worst"), of(times), strict=True)},
    }


def of(values):
    """Median, 95th percentile and greatest."""
    return (*np.percentile(values, [50, 95]), np.max(values))


def clicks(page, objects):
    """Milliseconds until objects that are clicked are chosen, far apart in the image."""
    times = []
    for one in objects:
        top, left, bottom, right = one["box"]
        x, y = page.evaluate(
            """([row, column]) => {
                const viewer = OpenSeadragon.getViewer(document.querySelector("#viewer")), { viewport } = viewer;
                const at = viewport.imageToViewportCoordinates(new OpenSeadragon.Point(column, row));
                viewport.zoomTo(viewport.imageToViewportZoom(1), null, true);
                viewport.panTo(at, true);
                const box = document.querySelector("canvas.labels").getBoundingClientRect();
                return [box.left + box.width / 2, box.top + box.height / 2];
            }""",
            [(top + bottom) / 2, (left + right) / 2],
        )
        until(page, OUTLINED)
        time.sleep(SETTLED)
        page.evaluate(CLICKED, one["label"])
        page.mouse.click(x, y)
        times.append(page.evaluate("() => window.clicked"))
    return np.array(times)


def label_tiles(ask, side):
    """Seconds of requests for tiles of labels, one after another, on all levels."""
    random, times = np.random.default_rng(0), []
    for k in range(TILES):
        level = k % levels((side, side))
        n = -(-side // (SIDE << level))
        row, column = random.integers(0, n, 2)
        times.append(ask("labels", name="large", level=level, row=row, column=column)[1])
    return np.array(times)


def memory(process):
    """Bytes of another process (Linux only): now, without what is mapped from files, and the most ever."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return {}
    found = {name: int(value) * 1024 for name, value in re.findall(r"^(\w+):\s+(\d+) kB", status.read_text(), re.M)}
    return {name: found[name] for name in ("VmHWM", "VmRSS", "RssAnon")}


def large_image(folder, side, n, browser):
    """All of the large image."""
    picture = picture_of_cells(side, side, n, np.random.default_rng(0))
    write_image(folder / "large.tif", picture[..., None])
    with Session.create(folder / "session", [folder / "large.tif"], Finds()) as session:
        found = session.progress("large").objects
    print(f"\n{side} x {side} pixels, {found} objects")
    numbers = {}
    with serving(folder / "session") as (process, address, ask):
        page, numbers["first"] = opened(browser, address)
        page.context.close()
    with serving(folder / "session") as (process, address, ask):
        page, numbers["open"] = opened(browser, address)
        page.context.close()
        page, numbers["again"] = opened(browser, address)
        print_table(
            "Until image and outlines are seen (asked: 2 s)",
            [
                {"": "for the first time, smaller versions being made", "time": milliseconds(numbers["first"])},
                {"": "by a server that has just begun", "time": milliseconds(numbers["open"])},
                {"": "by one that has shown it before", "time": milliseconds(numbers["again"])},
            ],
        )
        page.evaluate("() => performance.setResourceTimingBufferSize(100000)")
        flights = {"pan, tiles to be fetched": "pan", "again": "pan", "through all zooms": "fly", "once more": "fly"}
        numbers["frames"] = [{"": words, **frames(page, way, 8)} for words, way in flights.items()]
        print_table("Frames", numbers["frames"])
        asked = np.array(page.evaluate(ASKED)) / 1000
        objects = json.loads(ask("objects", name="large")[0])
        chosen = np.random.default_rng(1).choice(len(objects), CLICKS, replace=False)
        clicked = clicks(page, [objects[k] for k in chosen]) / 1000
        rows = {"click to object (asked: 50 ms)": clicked, f"{len(asked)} tiles of labels during flights": asked}
        rows[f"{TILES} tiles of labels, one by one (asked: 100 ms)"] = label_tiles(ask, side)
        numbers["times"] = {what: list(map(float, of(times))) for what, times in rows.items()}
        names = ("median", "p95", "worst")
        print_table(
            "Times",
            [
                {"": what, **{name: milliseconds(t) for name, t in zip(names, times, strict=True)}}
                for what, times in numbers["times"].items()
            ],
        )
        numbers["memory"] = memory(process)
        print("Memory of the server: " + ", ".join(f"{name} {n / 1e6:.0f} MB" for name, n in numbers["memory"].items()))
    return numbers


def many_images(folder, n, browser):
    """A session of many small images."""
    (folder / "small").mkdir()
    for k in range(n):
        picture = picture_of_cells(SMALL, SMALL, 2, np.random.default_rng(k))
        write_image(folder / "small" / f"image {k}.png", picture[..., None])
    Session.create(folder / "many", [folder / "small"], Finds()).close()
    with serving(folder / "many") as (_, address, ask):
        times = [ask("session")[1] for _ in range(3)]
        page, seconds = opened(browser, address)
        nodes = page.evaluate("() => document.querySelectorAll('*').length")
        begun = time.perf_counter()
        page.locator("#sort").select_option("name")
        page.locator("#images li").first.wait_for()
        sort = time.perf_counter() - begun
    rows = {"list of images, first": times[0], "list of images, again": times[-1]}
    rows |= {"until the first image is seen": seconds, "sorted by name": sort}
    print_table(
        f"{n} images; the page has {nodes} elements", [{"": k, "time": milliseconds(v)} for k, v in rows.items()]
    )
    return rows


def main():
    """Print the tables."""
    given = options(
        __doc__.splitlines()[0],
        ("--side", {"type": int, "default": 10_000, "help": "side of the large image (10,000)"}),
        ("--objects", {"type": int, "default": 20_000, "help": "in it (20,000)"}),
        ("--images", {"type": int, "default": 3_000, "help": "of the long list (3,000)"}),
    )
    print_machine()
    if hasattr(os, "getloadavg"):
        print(f"load of this machine {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        numbers = {"large": large_image(Path(scratch), given.side, given.objects, browser)}
        if given.images:
            numbers["many"] = many_images(Path(scratch), given.images, browser)
    keep(given.json, numbers)


if __name__ == "__main__":
    main()
