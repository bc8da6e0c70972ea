"""The page as people use it, in Chromium: what they see, press and type; pixels of the canvas are looked at.

Where there is no Chromium the tests are skipped, unless the environment variable ATTRACTOR_BROWSER demands them.
"""

import os
import re
import zipfile
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from shutil import which
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.web.conftest import Finder, picture, serving

from attractor.cli import serve
from attractor.images import write_image
from attractor.instances import Instances
from attractor.session import Session
from attractor.session.differences import draw_differences, pictures_of_round

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
IS_DEMANDED = bool(os.environ.get("ATTRACTOR_BROWSER"))
if CHROMIUM is None and not IS_DEMANDED:
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)
if IS_DEMANDED:
    playwright = import_module("playwright.sync_api")
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
expect = playwright.expect


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as runs:
        try:  # a container may have too little shared memory for it
            chromium = runs.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            )
        except playwright.Error as error:
            if IS_DEMANDED:
                raise
            pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


class Blind:
    """In place of a model that finds nothing."""

    def segment(self, image, name):
        return Instances(np.zeros(image.shape[:2], np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))


class Page:
    """A page that reports what goes wrong on it."""

    def __init__(self, browser, address, **how):
        self.context = browser.new_context(viewport={"width": 1280, "height": 800}, **how)
        self.page = self.context.new_page()
        self.problems = []
        self.page.on("console", lambda said: self.problems.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(address)
        self.page.locator("body[data-ready]").wait_for()

    def expect_objects(self, n):
        expect(self.page.locator("#count")).to_have_text(re.compile(rf"^{n} object"))

    def place(self, row, column):
        """Where a pixel of the image is on the screen."""
        x, y = self.page.evaluate(
            """([row, column]) => {
                const canvas = document.querySelector("canvas.labels"), box = canvas.getBoundingClientRect();
                const image = OpenSeadragon.getViewer(document.querySelector("#viewer")).world.getItemAt(0);
                if (!image) return [0, 0];
                const point = image.imageToViewerElementCoordinates(new OpenSeadragon.Point(column, row));
                return [box.left + point.x, box.top + point.y];
            }""",
            [row, column],
        )
        return x, y

    def settle(self):
        """Until the image has stopped moving and its labels are there."""
        for _ in range(100):
            before = self.place(0, 0)
            self.page.wait_for_timeout(100)
            if before == self.place(0, 0) and self.colours():
                return
        raise AssertionError("the labels never came")

    def click(self, row, column, **how):
        self.page.mouse.move(*self.place(row, column))
        if how.get("shift"):
            self.page.keyboard.down("Shift")
        self.page.mouse.down()
        self.page.mouse.up()
        if how.get("shift"):
            self.page.keyboard.up("Shift")
        self.page.wait_for_timeout(350)  # a click that could still become a double click

    def drag(self, *points):
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=6)
        self.page.mouse.up()

    def colours(self):
        """How many pixels of the labels' canvas are drawn."""
        return self.page.evaluate(
            """() => {
                const canvas = document.querySelector("canvas.labels");
                const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width || 1, canvas.height || 1);
                let n = 0;
                for (let k = 3; k < data.length; k += 4) n += data[k] > 0;
                return n;
            }"""
        )

    def drawn(self):
        """Which pixels of the labels' canvas are drawn."""
        shape = self.page.evaluate(
            "() => { const {width, height} = document.querySelector('canvas.labels'); return [height, width]; }"
        )
        opaque = self.page.evaluate(
            """() => {
                const canvas = document.querySelector("canvas.labels");
                const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let bits = "";
                for (let k = 3; k < data.length; k += 4) bits += data[k] > 0 ? "1" : "0";
                return bits;
            }"""
        )
        return (np.frombuffer(opaque.encode(), np.uint8) == ord("1")).reshape(shape)

    def pixel(self, row, column, canvas="canvas.labels"):
        """Red, green, blue and opacity where a pixel of the image is."""
        x, y = self.place(row, column)
        return self.page.evaluate(
            """([canvas, x, y]) => {
                const viewer = OpenSeadragon.getViewer(document.querySelector("#viewer"));
                const from = canvas === "image" ? viewer.drawer.canvas : document.querySelector(canvas);
                const box = from.getBoundingClientRect(), ratio = from.width / box.width;
                const [left, top] = [(x - box.left) * ratio, (y - box.top) * ratio];
                return [...from.getContext("2d").getImageData(left, top, 1, 1).data];
            }""",
            [canvas, x, y],
        )

    def expect_pixel(self, row, column, colour, canvas="image", off=14):
        """Wait until a pixel has a colour."""
        for _ in range(100):
            found = self.pixel(row, column, canvas)
            if max(abs(a - b) for a, b in zip(found, colour, strict=False)) <= off:
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{found} instead of {colour}")

    def close(self):
        self.context.close()
        assert not self.problems, self.problems


@contextmanager
def opened(browser, address, **how):
    page = Page(browser, address, **how)
    yield page
    page.close()


def test_a_person_corrects_objects(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        assert "#token" not in page.url
        one.expect_objects(3)
        expect(page.locator("#images li")).to_have_count(3)
        one.settle()
        before = one.colours()
        one.click(35, 20)  # the second object
        expect(page.locator("tr[aria-selected=true]")).to_have_count(1)
        expect(page.locator("#heard")).to_have_text("Object 2 is chosen.")
        page.keyboard.press("x")
        one.expect_objects(2)
        one.settle()
        assert one.colours() < before
        page.keyboard.press("Control+z")
        one.expect_objects(3)
        one.click(10, 10)
        one.click(35, 20, shift=True)
        expect(page.locator("tr[aria-selected=true]")).to_have_count(2)
        page.keyboard.press("w")
        one.drag((1, 1), (1, 36), (50, 36), (50, 1))  # around both
        one.expect_objects(2)
        expect(page.locator("tr[aria-selected=true]")).to_have_count(1)  # the other one is gone
        page.keyboard.press("z")
        one.expect_objects(3)
        page.keyboard.press("v")
        page.keyboard.press("Escape")
        one.settle()
        one.click(10, 10)
        expect(page.locator("tr[aria-selected=true]")).to_have_count(1)
        one.click(35, 20, shift=True)
        expect(page.locator("tr[aria-selected=true]")).to_have_count(2)
        page.get_by_role("button", name="merge").click()
        one.expect_objects(2)
        page.keyboard.press("z")
        one.expect_objects(3)
        page.keyboard.press("s")
        one.drag((15, 57), (55, 57))
        one.expect_objects(4)
        page.keyboard.press("d")
        one.drag((50, 10), (50, 25), (57, 25), (57, 10))
        one.expect_objects(5)
        page.keyboard.press("w")
        one.drag((49, 9), (49, 27), (58, 27), (58, 9))  # around the one just drawn
        one.expect_objects(5)
        page.keyboard.press("b")
        one.drag((8, 40), (12, 48))
        one.expect_objects(6)
        page.keyboard.press("e")
        with page.expect_response("**/api/objects?*"):  # the page has heard of the last stroke
            one.drag((8, 38), (12, 50))
        page.wait_for_timeout(100)
        one.expect_objects("[567]")  # the eraser may have taken all of the last, and split another
        n = page.locator("#count").inner_text()
        page.keyboard.press("v")
        page.keyboard.press("Escape")
        one.settle()
        page.wait_for_timeout(300)  # the finest tiles
        before = one.drawn()
        page.reload()
        page.locator("body[data-ready]").wait_for()
        expect(page.locator("#count")).to_have_text(n)
        one.settle()
        page.wait_for_timeout(300)  # the finest tiles
        after = one.drawn()
        assert before.shape == after.shape
        assert (before != after).sum() < 0.02 * before.sum()
        page.keyboard.press("r")
        expect(page.locator("#progress")).to_have_text("1 of 3 reviewed")
    with Session(folder) as session:
        done = [entry.kind for name in session.images for entry in session.history(name)]
        first, last = "delete undo redraw undo merge undo", "split draw redraw paint erase accept"
        assert done == [*first.split(), *last.split()]


def test_everything_can_be_done_by_keys(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        one.settle()
        page.keyboard.press("n")
        page.keyboard.press("p")
        one.settle()
        page.locator("#viewer").focus()

        def go(rows, columns):
            for key, n in (
                ("ArrowDown" if rows > 0 else "ArrowUp", abs(rows)),
                ("ArrowRight" if columns > 0 else "ArrowLeft", abs(columns)),
            ):
                for _ in range(n // 10):
                    page.keyboard.press(f"Shift+{key}")
                for _ in range(n % 10):
                    page.keyboard.press(key)

        page.keyboard.press("ArrowUp")  # from the middle of the image, 30.5 and 40.5
        go(6, -20)  # into the second object
        page.keyboard.press(" ")
        expect(page.locator("tr[aria-selected=true] td").first).to_have_text("2")
        page.keyboard.press("Delete")
        one.expect_objects(2)
        page.keyboard.press("d")
        for rows, columns in ((0, 0), (0, 5), (5, 0)):
            go(rows, columns)
            page.keyboard.press(" ")
        page.keyboard.press("Enter")
        one.expect_objects(3)
        page.keyboard.press("b")
        go(15, -10)
        page.keyboard.press(" ")
        page.keyboard.press("Enter")
        one.expect_objects(4)
        page.keyboard.press("Escape")
        page.keyboard.press("a")
        page.keyboard.press("y")
        expect(page.locator("#said")).to_have_text("There is nothing to redo in this image.")
        one.problems.clear()  # the browser reports the refusal


def test_objects_are_split_merged_erased_and_accepted_by_keys(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        one.settle()
        page.locator("#viewer").focus()

        def go(key, n):
            for _ in range(n // 10):
                page.keyboard.press(f"Shift+Arrow{key}")
            for _ in range(n % 10):
                page.keyboard.press(f"Arrow{key}")

        chosen = page.locator("tr[aria-selected=true]")
        page.keyboard.press("s")
        go("Up", 15)  # from the middle of the image, 30.5 and 40.5
        go("Right", 17)
        page.keyboard.press(" ")
        go("Down", 40)
        page.keyboard.press("Enter")  # down across the third object
        one.expect_objects(4)
        one.settle()
        page.keyboard.press("v")
        go("Up", 20)
        go("Left", 8)
        page.keyboard.press(" ")
        expect(chosen).to_have_count(1)
        go("Right", 16)
        page.keyboard.press("Shift+ ")
        expect(chosen).to_have_count(2)
        expect(page.locator("#heard")).to_have_text("2 objects are chosen.")
        page.keyboard.press("m")
        one.expect_objects(3)
        one.settle()
        page.keyboard.press(" ")
        expect(chosen).to_have_count(1)
        page.keyboard.press("a")
        expect(chosen.locator("td").last).to_have_text("✓")
        page.locator("#class").focus()
        page.keyboard.press("ArrowUp")
        expect(chosen.locator("td").nth(3)).to_have_text("cell")
        page.locator("#viewer").focus()
        area = chosen.locator("td").nth(2)
        before = int(area.inner_text())
        page.keyboard.press("e")
        page.keyboard.press(" ")
        page.keyboard.press("Enter")
        expect(area).not_to_have_text(str(before))
        assert int(area.inner_text()) < before
    with Session(folder) as session:
        done = [entry.kind for name in session.images for entry in session.history(name)]
        assert done == ["split", "merge", "accept", "class", "erase"]


def test_the_demo_is_one_click_away(browser, tmp_path):
    Session.create(tmp_path / "new", []).close()
    with serving(tmp_path / "new") as address, opened(browser, address) as one:
        one.page.locator("#demo").click()
        expect(one.page.locator("#images li")).to_have_count(2)
        expect(one.page.locator("#empty")).to_be_hidden()
        expect(one.page.locator("#model option:checked")).to_have_text("none")


def test_the_list_of_images_keeps_its_order_while_somebody_corrects(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        one.settle()
        rows = page.locator("#images li button")
        before = [rows.nth(k).get_attribute("data-image") for k in range(3)]
        page.keyboard.press("r")
        expect(page.locator("#images [aria-current=true]")).to_have_attribute("data-image", before[1])
        assert [rows.nth(k).get_attribute("data-image") for k in range(3)] == before
        page.keyboard.press("p")
        expect(page.locator("#images [aria-current=true]")).to_have_attribute("data-image", before[0])
        page.keyboard.press("r")  # again: the next that is not reviewed
        expect(page.locator("#images [aria-current=true]")).to_have_attribute("data-image", before[1])
        page.locator("#sort").select_option("name")
        page.locator("#sort").select_option("least sure")
        expect(rows.last).to_have_attribute("data-image", before[0])  # it has been reviewed


def test_an_export_that_fails_leaves_the_page_as_it_is(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        one.expect_objects(3)
        (folder / "images" / "a.png").write_bytes(b"broken")
        one.page.locator("#export").select_option("all overlay")
        expect(one.page.locator("#said")).to_contain_text("a.png")
        one.expect_objects(3)
        one.problems.clear()  # the browser reports the refusal


def test_an_image_is_dropped_in_and_segmented(browser, tmp_path):
    with serving(tmp_path / "new") as address, opened(browser, address) as one:
        page = one.page
        expect(page.locator("#empty")).to_be_visible()
        Image.fromarray(picture(3)[..., 0]).save(tmp_path / "dropped.png")
        page.locator("#files").set_input_files(tmp_path / "dropped.png")
        expect(page.locator("#images li")).to_have_count(1)
        expect(page.locator(".job.done")).to_have_count(1, timeout=60_000)
        expect(page.locator("#count")).not_to_have_text("0 objects")
        page.locator("#segment").press("Enter")
        expect(page.locator(".job.done")).to_have_count(2, timeout=60_000)
        page.locator("#segment-all").press("Enter")
        expect(page.locator(".job.done")).to_have_count(3, timeout=60_000)
        with page.expect_download() as download:
            page.locator("#export").select_option("all labels")
        assert download.value.suggested_filename == "labels.zip"
        with page.expect_download() as download:
            page.locator("#export").select_option("one csv")
        with zipfile.ZipFile(download.value.path()) as archive:
            assert archive.namelist() == ["dropped_objects.csv"]
        page.get_by_text("Log").last.click()
        expect(page.locator(".job pre").last).to_have_text("It has said nothing.")


def test_all_objects_are_chosen_and_removed_at_once(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        one.settle()
        one.expect_objects(3)
        one.page.keyboard.press("Control+a")
        expect(one.page.locator("#objects [aria-selected=true]")).to_have_count(3)
        one.page.keyboard.press("x")
        one.expect_objects(0)
        one.page.keyboard.press("Control+z")
        one.expect_objects(3)
    with Session(folder) as session:
        assert [entry.kind for name in session.images for entry in session.history(name)] == ["delete", "undo"]


def test_before_and_after_stand_side_by_side_and_a_model_is_chosen(browser, folder):
    with Session(folder) as session:
        drawn = draw_differences(pictures_of_round(folder, 1), Finder(), Blind(), [("a", session.path("a"))])
        (folder / "models" / "round-1.safetensors").touch()
        score = {"value": 0.5, "low": 0.4, "high": 0.6}
        one_round = {"number": 1, "kept": True, "before": score, "after": score | {"value": 0.75}, "held_out": ["a"]}
        session.note(model="street", rounds=[one_round | {"shown": list(drawn)}], in_use="models/round-1.safetensors")
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        expect(page.locator("#rounds")).to_contain_text(
            re.compile(r"\.500 \(\.400.\.600\) before, \.750 \(\.400.\.600\) after")
        )
        expect(page.locator("#model option:checked")).to_have_text("round 1")
        page.get_by_role("button", name="Compare").click()
        expect(page.locator("#differences")).to_contain_text("a (held out)")
        pictures = page.locator("#differences img")
        expect(pictures).to_have_count(2)
        before, after = (pictures.nth(k) for k in (0, 1))
        for shown in (before, after):
            expect(shown).to_have_js_property("complete", True)
            assert shown.evaluate("image => image.naturalWidth") == 80
        left, right = before.bounding_box(), after.bounding_box()
        assert left["y"] == right["y"]
        assert left["x"] + left["width"] < right["x"]
        page.keyboard.press("x")  # no tool works behind the pictures
        page.keyboard.press("Escape")
        expect(page.locator("#differences")).not_to_be_visible()
        one.expect_objects(3)
        page.locator("#model").select_option("street")
        expect(page.locator("#said")).to_contain_text("Segment uses street now.")
    with Session(folder) as session:
        assert session.model == "street"


@pytest.fixture
def pictures(tmp_path):
    """A folder with another one in it, and with files that are no images."""
    inner = tmp_path / "plate" / "inner"
    inner.mkdir(parents=True)
    for k in range(130):  # a browser gives a hundred at a time
        Image.fromarray(picture(k % 3)[..., 0]).save(tmp_path / "plate" / f"i{k:03}.png")
    Image.fromarray(picture(3)[..., 0]).save(inner / "deep.png")
    (inner / "notes.txt").write_text("no image")
    (inner / "broken.png").write_bytes(b"broken")
    (tmp_path / "plate" / ".hidden.png").write_bytes(b"")
    return tmp_path / "plate"


def test_a_folder_is_added_and_what_was_refused_is_listed(browser, tmp_path, pictures):
    Session.create(tmp_path / "new", []).close()
    with serving(tmp_path / "new") as address, opened(browser, address) as one:
        page = one.page
        with page.expect_file_chooser() as chooser:
            page.locator("#add-folder").focus()
            page.keyboard.press("Enter")
        chooser.value.set_files(pictures)
        expect(page.locator("#upload-words")).to_have_text("131 of 133 added, 2 refused", timeout=60_000)
        expect(page.locator("#progress")).to_have_text("0 of 131 reviewed")
        expect(page.locator("#upload-share")).to_be_hidden()
        refused = sorted(page.locator("#upload-refused li").all_inner_texts())
        assert refused[0].startswith("plate/inner/broken.png is not an image that can be read here; give PNG")
        assert refused[1] == "plate/inner/notes.txt is no image that can be read here."
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#uploads")).to_be_hidden()
        one.problems.clear()  # the browser reports the refusal


def test_a_folder_is_dropped_and_given_up_halfway(browser, tmp_path, pictures):
    Session.create(tmp_path / "new", []).close()
    with serving(tmp_path / "new") as address, opened(browser, address) as one:
        page = one.page
        drag = page.context.new_cdp_session(page)
        data = {"items": [], "files": [str(pictures)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            drag.send("Input.dispatchDragEvent", {"type": kind, "x": 640, "y": 300, "data": data})
        expect(page.locator("#upload-words")).to_have_text(re.compile(r"^\d+ of 133 added"))
        expect(page.locator("#upload-words")).to_have_text(re.compile(r"^[1-9]"))
        page.locator("#upload-cancel").click()
        expect(page.locator("#upload-words")).to_have_text(re.compile(r"^\d+ of 133 added.*; cancelled$"))
        expect(page.locator("#upload-close")).to_be_visible()
        n = int(page.locator("#upload-words").inner_text().split()[0])
        assert 0 < n < 131
        page.wait_for_timeout(500)  # nothing more is sent
        assert n <= len(list((tmp_path / "new" / "images").iterdir())) <= n + 3  # those that were under way
        one.problems.clear()


def test_an_image_is_removed_and_brought_back(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        one.settle()
        name = page.locator("#images [aria-current=true]").get_attribute("data-image")
        page.locator("#remove").click()
        expect(page.locator("#images li")).to_have_count(2)
        expect(page.locator("#images [aria-current=true]")).not_to_have_attribute("data-image", name)
        page.locator("#removed summary").click()
        page.get_by_role("button", name=f"Bring {name} back").click()
        expect(page.locator("#images li")).to_have_count(3)
        expect(page.locator("#removed")).to_be_hidden()
        page.locator("#remove").click()
        expect(page.locator("#images li")).to_have_count(2)
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete for good").click()
        expect(page.locator("#removed")).to_be_hidden()
    assert not (folder / "trash").exists()


def test_two_people_see_each_others_work(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        one.settle()
        cookies = one.context.cookies()
        with opened(browser, address) as other:
            other.settle()
            before = other.drawn()
            one.click(35, 20)
            one.page.keyboard.press("x")
            one.expect_objects(2)
            other.expect_objects(2)
            for _ in range(100):
                if other.drawn().sum() < 0.8 * before.sum():
                    break
                other.page.wait_for_timeout(50)
            else:
                raise AssertionError("the object is still drawn")
        assert [cookie["httpOnly"] for cookie in cookies] == [True]


def test_objects_are_filled_fade_and_hide_by_keys(browser, folder):
    with serving(folder) as address, opened(browser, address) as one:
        page = one.page
        one.settle()
        assert one.pixel(35, 20)[3] == 0  # within an outline
        page.locator("#mode").select_option("filled")
        one.expect_pixel(35, 20, (0, 0, 0, 115), "canvas.labels", 255)
        at_first = one.pixel(35, 20)[3]
        assert 90 < at_first < 140
        page.get_by_label("Opacity").focus()
        page.keyboard.press("Home")
        page.wait_for_timeout(200)
        assert 5 < one.pixel(35, 20)[3] < 30
        page.keyboard.press("End")
        page.wait_for_timeout(200)
        assert one.pixel(35, 20)[3] == 255
        page.locator("#mode").select_option("outlines")
        page.wait_for_timeout(200)
        whole = one.colours()
        page.get_by_label("Opacity").press("Home")
        page.wait_for_timeout(200)
        assert one.colours() >= 0.9 * whole  # all lines are there, but faint
        page.locator("#viewer").focus()
        page.keyboard.press("h")
        page.wait_for_timeout(200)
        assert one.colours() == 0
        expect(page.get_by_label("Opacity")).to_be_disabled()
        page.keyboard.press("h")
        page.wait_for_timeout(200)
        assert one.colours() >= 0.9 * whole


def test_channels_get_colours_and_contrast_by_keys(browser, tmp_path):
    image = np.zeros((2, 60, 80), np.uint16)
    image[0, :30], image[1, :, :40] = 4000, 1000
    image[:, 0, 0], image[:, -1, -1] = 5000, 5000
    (tmp_path / "pictures").mkdir()
    tifffile.imwrite(tmp_path / "pictures" / "two.tif", image, photometric="minisblack", metadata={"axes": "CYX"})
    Session.create(tmp_path / "project", [tmp_path / "pictures"]).close()
    with serving(tmp_path / "project") as address, opened(browser, address) as one:
        page = one.page
        one.expect_pixel(15, 60, (255, 0, 255))
        one.expect_pixel(45, 20, (0, 255, 0))
        one.expect_pixel(15, 20, (255, 255, 255))
        page.get_by_role("checkbox", name="channel 2").focus()
        page.keyboard.press("Space")
        one.expect_pixel(45, 20, (0, 0, 0))
        one.expect_pixel(15, 60, (255, 0, 255))
        page.get_by_label("Colour of channel 1").select_option("cyan")
        one.expect_pixel(15, 60, (0, 255, 255))
        page.get_by_label("Brightest value of channel 1, as a number").fill("8000")
        page.keyboard.press("Enter")
        one.expect_pixel(15, 60, (0, 128, 128))
        page.get_by_role("button", name="Contrast of channel 1 by the values of this image").press("Enter")
        one.expect_pixel(15, 60, (0, 255, 255))
        page.get_by_role("button", name="Full range of channel 1").press("Enter")
        one.expect_pixel(15, 60, (0, 204, 204))
        page.get_by_label("Darkest value of channel 1", exact=True).focus()
        page.keyboard.press("End")
        one.expect_pixel(15, 60, (0, 0, 0))


def test_a_long_list_has_only_the_rows_in_view(browser, tmp_path):
    (tmp_path / "pictures").mkdir()
    for k in range(150):
        Image.fromarray(np.full((8, 8), k, np.uint8)).save(tmp_path / "pictures" / f"image {k}.png")
    Session.create(tmp_path / "project", [tmp_path / "pictures"]).close()
    with serving(tmp_path / "project") as address, opened(browser, address) as one:
        page = one.page
        rows = page.locator("#images li")
        page.locator("#sort").select_option("name")
        expect(rows.first).to_contain_text("image 0")
        one.expect_objects(0)  # an image has been opened, which brings its row into view
        assert rows.count() < 60
        assert rows.first.get_attribute("aria-setsize") == "150"
        page.locator("#images").evaluate("list => { list.scrollTop = list.scrollHeight; }")
        expect(rows.last).to_contain_text("image 149")
        assert rows.last.get_attribute("aria-posinset") == "150"
        rows.last.locator("button").click()
        expect(page.locator("#images [aria-current=true]")).to_contain_text("image 149")
        page.locator("#viewer").focus()
        page.keyboard.press("p")
        expect(page.locator("#images [aria-current=true]")).to_contain_text("image 148")
        page.locator("#images").evaluate("list => { list.scrollTop = 0; }")
        expect(rows.first).to_contain_text("image 0")
        page.locator("#viewer").focus()
        page.keyboard.press("n")
        expect(page.locator("#images [aria-current=true]")).to_be_in_viewport()


def test_a_thin_object_is_found_at_once_and_its_row_among_many(browser, tmp_path):
    labels = np.zeros((1100, 1100), np.int32)
    labels[np.ix_(range(20, 1000, 60), range(20, 1000, 60))] = np.arange(1, 290).reshape(17, 17)
    labels[501, 103:1001] = 290  # one pixel wide, in a row that coarser tiles leave out
    write_image(tmp_path / "thin.png", np.full((1100, 1100, 1), 90, np.uint8))
    with Session.create(tmp_path / "project", [tmp_path / "thin.png"]) as session:
        n = int(labels.max())
        session.put("thin", Instances(labels, np.ones(n, np.int32), np.linspace(0.1, 0.9, n).astype(np.float32)))
    with serving(tmp_path / "project") as address, opened(browser, address) as one:
        page = one.page
        one.expect_objects(290)
        expect(page.locator("#objects tr").first).to_be_visible()
        page.evaluate(
            """() => {
                const { viewport } = OpenSeadragon.getViewer(document.querySelector("#viewer"));
                viewport.zoomTo(viewport.imageToViewportZoom(8), null, true);
                viewport.panTo(viewport.imageToViewportCoordinates(new OpenSeadragon.Point(555, 501.5)), true);
            }"""
        )
        one.click(501.5, 555.5)
        chosen = page.locator("tr[aria-selected=true]")
        expect(chosen.locator("td").first).to_have_text("290")
        expect(chosen).to_be_in_viewport()
        assert page.locator("#objects tr").count() < 100
        page.locator("#table").evaluate("table => { table.scrollTop = 0; }")
        row = page.locator("#objects tr").first
        expect(row.locator("td").first).to_have_text("1")  # the list is laid out anew in the next frame
        row.focus()
        for _ in range(60):
            page.keyboard.press("ArrowDown")
        expect(page.locator("#objects tr:focus td").first).to_have_text("61")


def test_the_address_reaches_the_browser_by_a_file_that_nobody_else_can_read(browser, folder, monkeypatch):
    asked = []
    monkeypatch.setattr("webbrowser.open", asked.append)
    with serving(folder) as address, serve.opened(address, folder.parent):
        (given,) = asked
        assert "token" not in given
        file = Path(url2pathname(urlsplit(given).path))
        assert file.stat().st_mode & 0o077 == 0
        with opened(browser, given) as one:
            one.expect_objects(3)
            assert one.page.url == address.partition("#")[0]
    assert not file.exists()


def test_a_wrong_token_shows_a_closed_door(browser, folder):
    with serving(folder) as address:
        one = Page(browser, address.partition("#")[0] + "#token=wrong")
        expect(one.page.locator("#door")).to_be_visible()
        one.context.close()


def test_a_narrow_window_and_dark_colours(browser, folder):
    with serving(folder) as address:
        one = Page(browser, address, color_scheme="dark")
        one.page.set_viewport_size({"width": 420, "height": 900})
        one.settle()
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 420
        picture_of = np.asarray(
            Image.open(Path(one.page.screenshot(path=str(folder / ".shot.png")) and folder / ".shot.png"))
        )
        assert picture_of[-5, 5, :3].mean() < 80
        one.close()


def test_a_round_of_training_shows_its_score(browser, folder):
    with Session(folder) as session:
        from attractor.session import Accept

        for name in session.images:
            session.apply(Accept(name))
    with serving(folder) as address, opened(browser, address) as one:
        one.page.locator("#minutes").fill("0.3")
        one.page.get_by_role("button", name="Train").press("Enter")
        cancel, bar = one.page.get_by_role("button", name="Cancel"), one.page.locator(".job.running progress")
        cancel.focus()
        for _ in range(2):  # as often as it is told how far the training is
            expect(bar).not_to_have_attribute("value", bar.get_attribute("value"), timeout=60_000)
        expect(cancel).to_be_focused()
        expect(one.page.locator(".job svg polyline").first).to_be_attached(timeout=60_000)
        expect(one.page.locator(".job.done .words")).to_contain_text("Round 1: AP", timeout=150_000)
    with Session(folder) as session:
        assert session.project["rounds"][0]["number"] == 1
