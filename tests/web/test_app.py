"""The HTTP API: what it shows, what it changes, and whom it refuses."""

import hashlib
import io
import json
import pickle
import re
import shutil
import threading
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from fastapi.testclient import TestClient
from PIL import Image
from tests.web.conftest import LABELS, TOKEN, Finder, picture

from attractor.description import Description
from attractor.errors import InputError
from attractor.images import write_image
from attractor.model import Model
from attractor.session import Session
from attractor.session.differences import picture_file, pictures_of_round
from attractor.session.models import models_of_folder
from attractor.session.operations import Accept
from attractor.web import app as web
from attractor.web import uploads
from attractor.web.app import PAGE, create_app
from attractor.web.export import exported, forms
from attractor.web.tiles import SIDE, Pictures, Shown, label_tile, levels
from attractor.web.tiles import picture as picture_of
from attractor.weights import MODELS


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def many_pages():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        for _ in range(300):
            tiff.write(np.zeros((16, 16), np.uint8), contiguous=False)
    return file.getvalue()


def edit(client, **operation):
    return client.post("/api/edits", json={"operation": operation, "who": "Ada"})


# ------------------------------------------------------------------- looking


@pytest.mark.parametrize("reviewed", [False, True])
def test_what_a_page_shows_first_is_read_before_it_asks(folder, reviewed, monkeypatch):
    with Session(folder) as session:
        if reviewed:
            session.apply(Accept("a"))
        read, canvas_of = threading.Event(), session.canvas

        def canvas(name):
            if name == ("b" if reviewed else "a"):
                read.set()
            return canvas_of(name)

        monkeypatch.setattr(session, "canvas", canvas)
        with TestClient(create_app(session, token=TOKEN, port=8765, device="cpu")):
            assert read.wait(20)


def test_an_image_that_waits_to_be_segmented_stays_new(folder, tmp_path):
    with Session.create(tmp_path / "new", []) as session:
        session.copy(folder / "images" / "a.png")
        web._read_ahead(session, Pictures(tmp_path))
        assert session.progress("a").state == "new"


def test_the_session_and_its_images(client):
    content = client.get("/api/session").json()
    assert content["classes"] == ["cell", "debris"]
    assert [image["image"] for image in content["images"]] == ["a", "b", "c d"]
    assert content["images"][0]["state"] == "segmented"
    image = client.get("/api/image", params={"name": "c d"}).json()
    assert (image["height"], image["width"], image["channels"], image["levels"]) == (60, 80, 1, 1)


def test_tiles(client):
    image = Image.open(
        io.BytesIO(client.get("/api/tile", params={"name": "a", "level": 0, "row": 0, "column": 0}).content)
    )
    assert image.size == (80, 60)
    shown = np.asarray(image.convert("L")).astype(int)
    assert shown[LABELS > 0].min() > shown[LABELS == 0].max()
    answer = client.get("/api/labels", params={"name": "a", "level": 0, "row": 0, "column": 0})
    tile = np.frombuffer(answer.content, "<u4").reshape(SIDE + 2, SIDE + 2)
    np.testing.assert_array_equal(tile[1:61, 1:81], LABELS)
    assert not tile[0].any()
    assert client.get("/api/thumbnail", params={"name": "a"}).status_code == 200


@pytest.mark.parametrize(
    "values",
    [{"level": 1}, {"level": -1}, {"row": 1}, {"row": -1}, {"column": 7}, {"name": "nowhere"}, {"channels": "3"}],
)
def test_tiles_that_are_not_there(client, values):
    answer = client.get("/api/tile", params={"name": "a", "level": 0, "row": 0, "column": 0} | values)
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_large_image_has_levels_whose_tiles_fit_together():
    random = np.random.default_rng(0)
    labels = random.integers(0, 9, (1030, 700)).astype(np.int32)
    assert levels(labels.shape) == 3
    whole = np.zeros((1030, 700), np.int32)
    for row in range(3):
        for column in range(2):
            tile = np.frombuffer(zlib.decompress(label_tile(labels, 0, row, column)), "<u4").reshape(SIDE + 2, SIDE + 2)
            part = whole[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
            part[:] = tile[1 : 1 + part.shape[0], 1 : 1 + part.shape[1]]
            if row:
                np.testing.assert_array_equal(
                    tile[0, 1 : 1 + part.shape[1]], whole[row * SIDE - 1, column * SIDE :][: part.shape[1]]
                )
    np.testing.assert_array_equal(whole, labels)
    coarse = np.frombuffer(zlib.decompress(label_tile(labels, 2, 0, 0)), "<u4").reshape(SIDE + 2, SIDE + 2)
    np.testing.assert_array_equal(coarse[1 : 1 + 258, 1 : 1 + 175], labels[::4, ::4])
    shown = picture_of(random.integers(0, 4000, (1030, 700, 2)).astype(np.uint16))
    assert [part.shape for part in shown.pyramid.values()] == [(1030, 700, 2), (515, 350, 2), (258, 175, 2)]
    assert Image.open(io.BytesIO(shown.tile(0, 2, 1, (Shown(0), Shown(1))))).size == (188, 6)


def test_objects(client):
    objects = client.get("/api/objects", params={"name": "a"}).json()
    assert [one["label"] for one in objects] == [1, 2, 3]
    assert objects[2] == {
        "label": 3,
        "class_number": 2,
        "score": pytest.approx(0.7),
        "area": 750,
        "box": [20, 45, 50, 70],
        "reviewed": False,
    }


# ---------------------------------------------------------------- correcting


def test_an_operation_is_kept_and_can_be_taken_back(client, folder, session):
    done = edit(client, kind="merge", image="a", labels=[1, 2]).json()
    assert (done["revision"], done["box"]) == (1, [2, 2, 48, 33])
    assert done["progress"]["objects"] == 2
    assert [one["label"] for one in client.get("/api/objects", params={"name": "a"}).json()] == [1, 3]
    assert (
        client.post("/api/undo", json={"image": "a", "who": "Bob"}).json()["detail"]
        == "There is nothing to undo in this image."
    )
    assert client.post("/api/undo", json={"image": "a", "who": "Ada"}).json()["revision"] == 2
    assert len(client.get("/api/objects", params={"name": "a"}).json()) == 3
    client.post("/api/redo", json={"image": "a", "who": "Ada"})
    session.close()
    with Session(folder) as again:
        assert set(again.canvas("a").things) == {1, 3}
        assert [entry.who for entry in again.history("a")] == ["Ada"] * 3


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        ({"kind": "delete", "image": "a", "labels": [9]}, "There is no object 9"),
        ({"kind": "explode", "image": "a"}, "There is no such operation"),
        ({"kind": ["delete"], "image": "a"}, "There is no such operation"),
        ({"kind": "delete", "image": "../a", "labels": [1]}, "There is no image '../a'"),
        ({"kind": "delete", "image": "a", "labels": "all"}, "cannot be read"),
    ],
)
def test_operations_that_cannot_be(client, operation, words):
    answer = edit(client, **operation)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]


# -------------------------------------------------------------------- images


def test_an_image_that_is_added(client, folder):
    answer = client.post("/api/images", files={"file": ("../../x y.png", png(picture(7)[..., 0]))})
    assert answer.json() == {"image": "x y"}
    assert (folder / "images" / "x y.png").exists()
    again = client.post("/api/images", files={"file": ("x y.png", png(picture(8)[..., 0]))})
    assert again.json() == {"image": "x y 2"}
    assert edit(client, kind="draw", image="x y", outline=[[1, 1], [1, 9], [9, 9]]).json()["progress"]["objects"] == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.exe", b"MZ", "is no image that can be read here"),
        ("a.svg", b"<svg/>", "is no image that can be read here"),
        ("a.zip", b"PK\3\4", "is no image that can be read here"),
        ("a.png", pickle.dumps([1]), "a.png: is not an image"),
        ("pages.tif", many_pages(), "holds 300 images; give one plane"),
        ("a.png", b"hello", "a.png"),
        ("<script>.png", b"", "<script>.png"),
        (
            "a.png",
            b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x08\0\0\0\0\0\0\0\0",
            "a.png",
        ),
    ],
)
def test_what_is_no_image_is_refused(client, folder, name, content, words):
    answer = client.post("/api/images", files={"file": (name, content)})
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert str(folder) not in answer.json()["detail"]
    assert len(list((folder / "images").iterdir())) == 3
    assert not list(folder.glob(".*.part*"))


def test_an_image_with_too_many_pixels_is_refused(client, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_PIXELS", 100)
    answer = client.post("/api/images", files={"file": ("a.png", png(picture(1)[..., 0]))})
    assert "claims 60 x 80 pixels, more than one image can have here (100)" in answer.json()["detail"]


def test_uploads_of_one_name_at_once_are_all_kept(client, folder):
    content = png(picture(1)[..., 0])

    def upload(_):
        return client.post("/api/images", files={"file": ("same.png", content)}).json()["image"]

    with ThreadPoolExecutor(4) as threads:
        names = set(threads.map(upload, range(4)))
    assert names == {"same", "same 2", "same 3", "same 4"}
    assert {path.stem for path in (folder / "images").iterdir()} == {"a", "b", "c d", *names}


def test_an_image_that_takes_too_long_is_refused_and_the_next_is_not(client, monkeypatch):
    file = {"file": ("a.png", png(picture(1)[..., 0]))}
    with monkeypatch.context() as changed:
        changed.setattr(uploads, "DECODING_SECONDS", 0.0)
        assert client.post("/api/images", files=file).json()["detail"] == "a.png: It took longer than 0 seconds."
    assert client.post("/api/images", files=file).status_code == 200


def test_an_image_for_which_memory_does_not_suffice_is_refused(client, monkeypatch):
    file = {"file": ("a.png", png(np.zeros((9000, 9000), np.uint8)))}
    monkeypatch.setattr(uploads, "DECODING_BYTES", 300 << 20)
    words = client.post("/api/images", files=file).json()["detail"]
    assert re.search("too large|memory", words)


def test_entities_in_the_description_of_an_image_do_not_grow(client):
    """OME-XML is read by tifffile; a thousand million laughs end in a refusal or a reading, and soon."""
    lines = [f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10)]
    text = f"<?xml version='1.0'?><!DOCTYPE OME [<!ENTITY l0 \"ha\">{''.join(lines)}]><OME><Image ID='&l9;'/></OME>"
    file = io.BytesIO()
    tifffile.imwrite(file, picture(1)[..., 0], description=text, metadata=None)
    begun = time.monotonic()
    assert client.post("/api/images", files={"file": ("a.tif", file.getvalue())}).status_code in (200, 400)
    assert time.monotonic() - begun < 20
    assert client.get("/api/health").status_code == 200


def test_an_image_that_was_removed_comes_back_as_it_was(client, folder, session):
    edit(client, kind="merge", image="a", labels=[1, 2])
    objects = client.get("/api/objects", params={"name": "a"}).json()
    assert client.delete("/api/images", params={"name": "a"}).json() == {"image": "a", "removed": ["a"]}
    content = client.get("/api/session").json()
    assert ([image["image"] for image in content["images"]], content["removed"]) == (["b", "c d"], ["a"])
    assert client.get("/api/objects", params={"name": "a"}).status_code == 400
    for part, name in (("images", "a.png"), ("labels", "a.tif"), ("reviewed", "a.png"), ("objects", "a.json")):
        assert (folder / "trash" / part / name).is_file()
        assert not (folder / part / name).exists()
    again = client.post("/api/images", files={"file": ("a.png", png(picture(1)[..., 0]))}).json()
    assert again == {"image": "a 2"}  # the corrections of the first are not its own
    assert client.post("/api/images/back", json={"image": "a"}).json() == {"image": "a", "removed": []}
    assert client.get("/api/objects", params={"name": "a"}).json() == objects
    assert client.post("/api/undo", json={"image": "a", "who": "Ada"}).status_code == 200


def test_a_server_deletes_what_was_removed_long_ago(session, folder, monkeypatch):
    monkeypatch.setattr(web, "EMPTYING", 0.0)
    emptied, empty = threading.Semaphore(0), session.empty_old_trash

    def empty_and_tell(days):
        empty(days)
        emptied.release()

    monkeypatch.setattr(session, "empty_old_trash", empty_and_tell)
    session.remove("a")
    with TestClient(web.create_app(session, token=TOKEN, port=1, trash_days=0.0), base_url="http://localhost"):
        assert all(emptied.acquire(timeout=60) for _ in range(2))  # again and again
    assert session.removed == ()
    assert not (folder / "trash" / "images" / "a.png").exists()


def test_removed_images_are_deleted_for_good_when_somebody_says_so(client, folder):
    client.delete("/api/images", params={"name": "b"})
    assert client.delete("/api/trash").json() == {"image": "", "removed": []}
    assert client.delete("/api/trash").json() == {"image": "", "removed": []}
    assert not (folder / "trash").exists()


def test_what_cannot_be_removed_or_brought_back(client):
    for answer in (
        client.delete("/api/images", params={"name": "nowhere"}),
        client.post("/api/images/back", json={"image": "a"}),
        client.post("/api/images/back", json={"image": "../images/a"}),
    ):
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("There is no image")
    assert client.delete("/api/images").json()["detail"] == "name: Field required."


def test_images_beyond_the_quota_are_refused(session, folder):
    content = png(picture(5)[..., 0])
    room = sum(file.stat().st_size for file in (folder / "images").iterdir()) + len(content)
    app = web.create_app(session, token=TOKEN, port=8765, device="cpu", quota=room)
    with TestClient(app, base_url="http://127.0.0.1", headers={"authorization": f"Bearer {TOKEN}"}) as client:

        def send():
            return client.post("/api/images", files={"file": ("new.png", content)})

        assert send().status_code == 200
        answer = send()
        assert answer.status_code == 400
        assert re.match(r"new.png: takes 0.0 MB, and .* take 0.0 of 0.0 MB; remove some", answer.json()["detail"])
        client.delete("/api/images", params={"name": "new"})
        assert send().status_code == 400  # it is in the trash
        client.delete("/api/trash")
        assert send().json() == {"image": "new"}
    assert not list(folder.glob(".*.part*"))


def test_export(client):
    edit(client, kind="delete", image="a", labels=[1])
    archive = zipfile.ZipFile(io.BytesIO(client.get("/api/export", params={"form": "labels"}).content))
    assert sorted(archive.namelist()) == ["a_labels.tif", "b_labels.tif", "c d_labels.tif"]
    labels = tifffile.imread(io.BytesIO(archive.read("a_labels.tif")))
    np.testing.assert_array_equal(labels > 0, LABELS > 1)
    one = zipfile.ZipFile(io.BytesIO(client.get("/api/export", params={"form": "coco", "name": "b"}).content))
    assert len(json.loads(one.read("b_coco.json"))["annotations"]) == 3
    for form in ("exe", "cityscapes"):  # Cityscapes has no such classes
        assert client.get("/api/export", params={"form": form}).status_code == 400


def test_a_form_with_several_files_an_image_is_exported_too(tmp_path):
    write_image(tmp_path / "a street.png", picture(0))

    class Cars(Finder):
        class_names = ("car", "truck")

    with Session.create(tmp_path / "project", [tmp_path / "a street.png"], Cars()) as session:
        assert "cityscapes" in forms(session.class_names)
        file = exported(session, ["a street"], "cityscapes")
    with file, zipfile.ZipFile(file) as archive:
        written = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(written) == ["a_street_pred.txt", *(f"masks/a_street_{k}.png" for k in range(3))]
    assert written["a_street_pred.txt"].startswith(b"masks/a_street_0.png 26 0.8999")


# ---------------------------------------------------------------------- jobs


def ended(client, number):
    for _ in range(600):
        job = client.get(f"/api/jobs/{number}").json()
        if job["state"] in ("done", "failed", "cancelled"):
            return job
        time.sleep(0.1)  # a process works on it
    raise AssertionError(job)


def test_segmenting_is_a_job(client):
    edit(client, kind="accept", image="a", labels=[2])
    job = client.post("/api/jobs", json={"kind": "segment", "arguments": {"images": ["a"], "model": "nuclei"}}).json()
    assert job["state"] in ("queued", "running")
    done = ended(client, job["number"])
    assert done["state"] == "done", done
    assert 2 in [one["label"] for one in client.get("/api/objects", params={"name": "a"}).json()]  # it was accepted
    assert client.get("/api/session").json()["jobs"][0]["progress"] == 1


def test_images_that_are_uploaded_while_a_job_runs_share_the_next_one(session, monkeypatch):
    from attractor.web import jobs

    monkeypatch.setattr(jobs, "MOST_TOGETHER", 3)
    monkeypatch.setattr(jobs.Jobs, "_work", lambda self: None)
    queue = jobs.Jobs(session, lambda kind, content: None)
    queue.add("segment", {"device": "cpu"})  # of all images: it does not grow
    for name in ("a", "b", "c d", "a"):
        queue.add_images([name], {"device": "cpu"})
    queue.add_images(["b"], {"device": "cuda"})
    assert [job.arguments for job in queue.all()] == [
        {"device": "cpu"},
        {"device": "cpu", "images": ["a", "b", "c d"]},
        {"device": "cpu", "images": ["a"]},
        {"device": "cuda", "images": ["b"]},
    ]
    queue.close()


@pytest.mark.slow
def test_a_job_passes_over_images_that_were_removed(client):
    first, second, third = (
        client.post("/api/jobs", json={"kind": "segment", "arguments": {"images": names, "model": "nuclei"}}).json()
        for names in (["a"], ["a", "b"], ["b"])
    )
    assert client.delete("/api/images", params={"name": "b"}).status_code == 200
    assert [ended(client, job["number"])["state"] for job in (first, second, third)] == ["done", "done", "failed"]
    words = client.get(f"/api/jobs/{third['number']}").json()["words"]
    assert words == "The images were removed from the session."


def test_a_training_with_too_little_fails_with_a_sentence(client):
    edit(client, kind="accept", image="a")
    job = client.post("/api/jobs", json={"kind": "train", "arguments": {"minutes": 1}}).json()
    done = ended(client, job["number"])
    assert done["state"] == "failed"
    assert "1 image reviewed so far; training needs 3" in done["words"]


def test_jobs_that_cannot_be(client):
    for kind, arguments, words in (
        ("explode", {}, "There is no job"),
        ("train", {"minutes": 0}, "minutes is 0"),
        ("train", {"start": "/etc/passwd"}, "There is no model"),
        ("segment", {"model": "../../model.safetensors"}, "There is no model"),
        ("segment", {"images": "a"}, "images: cannot be given"),
        ("segment", {"out": "/"}, "out: cannot be given"),
        ("segment", {"images": ["a", "nowhere"]}, "There is no image 'nowhere'"),
        ("segment", {"images": [["a"]]}, """There is no image "['a']\""""),
        ("segment", {"object_size": -1}, "object_size is -1; it must be a number above 0"),
        ("train", {"minutes": True}, "minutes is True; it must be a number above 0"),
    ):
        answer = client.post("/api/jobs", json={"kind": kind, "arguments": arguments})
        assert answer.status_code == 400
        assert words in answer.json()["detail"]
    assert client.get("/api/jobs/99").status_code == 400
    assert client.get(f"/api/jobs/{10**30}").json()["detail"].startswith("There is no job 1000")


def test_a_job_that_is_cancelled_ends(client):
    numbers = [
        client.post("/api/jobs", json={"kind": "segment", "arguments": {"model": "nuclei"}}).json()["number"]
        for _ in range(2)
    ]
    for number in reversed(numbers):
        assert client.delete(f"/api/jobs/{number}").json()["state"] == "cancelled"
    assert [ended(client, number)["state"] for number in numbers] == ["cancelled", "cancelled"]


def test_jobs_outlive_the_server(session):
    from attractor.web.jobs import Jobs

    told = []
    jobs = Jobs(session, lambda kind, content: told.append((kind, content)))
    number = jobs.add("segment", {"images": ["a"], "model": "nuclei", "device": "cpu"}).number
    jobs.close()
    again = Jobs(session, lambda kind, content: told.append((kind, content)))
    try:
        for _ in range(600):
            if again.get(number).state == "done":
                break
            time.sleep(0.1)  # a process works on it
        assert again.get(number).state == "done"
    finally:
        again.close()
    assert ("image", {"image": "a"}) in told


# ------------------------------------------------------------------ security

PATHS = [
    "/api/session",
    "/api/image?name=a",
    "/api/tile?name=a&level=0&row=0&column=0",
    "/api/objects?name=a",
    "/api/events",
    "/api/export",
]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_shown_without_the_token(stranger, path):
    for header in (
        {},
        {"authorization": "Bearer wrong"},
        {"cookie": "attractor-8765=wrong"},
        {"cookie": f"attractor-1={TOKEN}"},
    ):
        assert stranger.get(path, headers=header).status_code == 401


def test_nothing_is_changed_without_the_token(stranger, session):
    assert edit(stranger, kind="delete", image="a", labels=[1]).status_code == 401
    assert stranger.post("/api/images", files={"file": ("a.png", b"x")}).status_code == 401
    assert stranger.post("/api/jobs", json={"kind": "segment"}).status_code == 401
    assert session.revision == 0


def test_the_token_is_swapped_for_a_cookie(stranger):
    assert stranger.post("/api/login", json={"token": "wrong"}).status_code == 401
    cookie = stranger.post("/api/login", json={"token": TOKEN}).headers["set-cookie"]
    assert cookie.startswith("attractor-8765=")
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert stranger.get("/api/session").status_code == 200


def test_other_names_of_this_machine_are_refused(client):
    for host, status in (
        ("evil.example", 400),
        ("127.0.0.1:8765", 200),
        ("localhost:9", 200),
        ("127.0.0.1.evil.example", 400),
    ):
        assert client.get("/api/session", headers={"host": host}).status_code == status


def test_other_pages_may_change_nothing(client, session):
    operation = {"operation": {"kind": "delete", "image": "a", "labels": [1]}}
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ):
        assert client.post("/api/edits", json=operation, headers=headers).status_code == 403
        assert client.post("/api/login", json={"token": TOKEN}, headers=headers).status_code == 403
    assert session.revision == 0
    assert client.post("/api/edits", json=operation, headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_has_safe_headers(stranger):
    for path in ("/", "/api/session", "/page/main.js", "/nowhere"):
        headers = stranger.get(path).headers
        assert headers["content-security-policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
            "connect-src 'self'; worker-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page//etc/passwd",
        "/page/vendor",
        "/page/%00.js",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_other_file_is_given(stranger, path):
    assert stranger.get(path).status_code == 404


def test_large_bodies_are_turned_away_before_they_are_read(client, stranger, monkeypatch):
    def endless():
        raise AssertionError("it was read")
        yield b""

    assert client.post("/api/edits", content=endless(), headers={"content-length": str(1 << 30)}).status_code == 413
    assert client.post("/api/login", content=endless()).status_code == 411  # in pieces, whose sum nobody says
    del stranger.headers["authorization"]
    assert client.post("/api/login", content=endless(), headers={"content-length": "5000"}).status_code == 413
    assert stranger.post("/api/images", content=endless()).status_code == 401


def test_a_body_that_cannot_be_read_is_refused(client):
    for body in (b"[" * 1_000_000, b'{"operation":' * 100_000, b'{"operation":' + b"1" * 100_000 + b"}", b"\xff", b""):
        answer = client.post("/api/edits", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["detail"]


def test_a_damaged_image_does_not_hide_the_others(client, folder, session):
    (folder / "labels" / "b.tif").write_bytes(b"broken")
    session._held.clear()
    session._progress.clear()
    images = client.get("/api/session").json()["images"]
    assert [image["state"] for image in images] == ["segmented", "damaged", "segmented"]
    assert "b.tif" in images[1]["problem"]


def test_looking_and_correcting_at_once(client):
    """Objects are counted while others are drawn: neither sees half of the other."""
    codes = []

    def look():
        for _ in range(40):
            codes.append(client.get("/api/objects", params={"name": "a"}).status_code)

    thread = threading.Thread(target=look)
    thread.start()
    for k in range(40):
        edit(client, kind="paint", image="a", stroke=[[2 + k, 75]], radius=1.2, over=True)
    thread.join()
    assert set(codes) == {200}


def test_a_body_that_is_too_large_is_refused_before_it_is_read(session, monkeypatch):
    monkeypatch.setattr(web, "LARGEST_BODY", 1000)
    with TestClient(web.create_app(session, token=TOKEN, port=1), base_url="http://localhost") as client:
        assert client.post("/api/images", files={"file": ("a.png", b"0" * 5000)}).status_code == 413
        client.headers["authorization"] = f"Bearer {TOKEN}"

        def endless():
            yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
            for _ in range(1000):
                yield b"0" * 500

        in_pieces = {"content-type": "multipart/form-data; boundary=b"}  # whose sum nobody says
        assert client.post("/api/images", content=endless(), headers=in_pieces).status_code == 413


def test_vendored_files_are_those_of_the_manifest():
    lines = (PAGE / "vendor" / "manifest.txt").read_text().splitlines()
    named = {}
    for line in lines:
        name, *_, checksum = line.split()
        assert "OpenSeadragon 6.1.1" in line
        assert "BSD-3-Clause" in line
        named[name] = checksum
        licence = re.search(r"\((.*?)\)", line).group(1)
        assert "Redistribution and use" in (PAGE / "vendor" / licence).read_text()
    scripts = [path for path in (PAGE / "vendor").iterdir() if path.suffix == ".js"]
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in scripts} == named


# -------------------------------------------------------------------- models


def test_another_model_is_used(client, session):
    session.note(model="street")
    content = client.get("/api/session").json()
    assert content["in_use"] == "street"
    assert content["models"][0] == "street"  # that it began with; others that come with the package have one class
    answer = client.post("/api/model", json={"model": "/etc/passwd"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith('There is no model "/etc/passwd" here; there are street, ')
    assert client.post("/api/model", json={"model": "nuclei"}).json() == {"model": "nuclei"}
    assert session.model == "nuclei"


def test_models_of_a_folder_can_be_chosen(folder, tmp_path, caplog):
    made = tmp_path / "lab"
    with pytest.raises(InputError, match=r"lab: there is no such folder; give one that holds models"):
        models_of_folder(made)
    made.mkdir()
    (made / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"lab: holds no model for images"):
        models_of_folder(made)
    for name, n_classes in (("ours", 2), ("of-many", 3)):
        classes = tuple(f"class {k}" for k in range(n_classes))
        described = Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=classes)
        Model(described).save(made / f"{name}.safetensors")
    shutil.copy(MODELS["embryo"], made)  # for volumes
    found = models_of_folder(made)
    assert found == [str(made / "of-many.safetensors"), str(made / "ours.safetensors")]
    assert "broken.safetensors" in caplog.text
    with Session(folder, models=found) as session:
        app = web.create_app(session, token=TOKEN, port=1)
        with TestClient(app, base_url="http://localhost", headers={"authorization": f"Bearer {TOKEN}"}) as client:
            assert client.get("/api/session").json()["models"][0] == found[1]  # the session has two classes
            assert client.post("/api/model", json={"model": found[0]}).status_code == 400
            assert client.post("/api/model", json={"model": found[1]}).json() == {"model": found[1]}
        assert session.project["model"] == found[1]  # training starts from it
    with Session(folder) as session:
        assert session.models[0] == session.model == found[1]


@pytest.mark.parametrize("values", [{"number": 2}, {"name": "b"}, {"name": "../a"}, {"name": "../../project"}])
def test_pictures_of_a_round_that_are_not_there(client, session, values):
    session.note(rounds=[{"number": 1, "kept": True, "shown": ["a"]}])
    file = picture_file(pictures_of_round(session.folder, 1), "a", "after")
    file.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(file)
    there = {"number": 1, "name": "a", "which": "after"}
    assert client.get("/api/difference", params=there).headers["content-type"] == "image/webp"
    answer = client.get("/api/difference", params=there | values)
    assert answer.status_code == 400
    assert "has no picture of" in answer.json()["detail"]
    assert client.get("/api/difference", params=there | {"which": "../after"}).status_code == 400
