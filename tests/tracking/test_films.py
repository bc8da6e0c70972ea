"""Films on the disk: what is a film, and in which order its frames are."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from attractor import InputError
from attractor.images import write_image
from attractor.tracking.films import open_film, open_labels


def save(*names, value=None):
    for place, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((4, 6, 1), place if value is None else value, np.uint8)
        write_image(name, pixels)


def first_pixels(frames):
    return [int(frame.flat[0]) for frame in frames]


def test_frames_are_in_the_order_of_their_numbers(in_folder):
    save("film/t2.png", "film/t10.png", "film/t0.png", "film/t4.png", "film/t6.png", "film/t8.png")
    film = open_film(["film"])
    assert film.name == "film"
    assert first_pixels(film) == [2, 0, 3, 4, 5, 1]
    assert len(film) == 6


def test_every_second_frame_is_a_film(in_folder):
    save("film/t000.png", "film/t002.png", "film/t004.png")
    assert first_pixels(open_film(["film"])) == [0, 1, 2]


def test_a_missing_frame_is_noticed(in_folder):
    save("film/t000.png", "film/t001.png", "film/t004.png")
    with pytest.raises(InputError, match=r"film: 2 frames between t000.png and t004.png are missing: 2, 3. Add what"):
        open_film(["film"])
    files = sorted(Path("film").iterdir())
    assert first_pixels(open_film(files)) == [0, 1, 2]


def test_names_with_other_numbers_are_only_sorted(in_folder):
    save("film/a1_t1.png", "film/a2_t9.png", "film/b.png")
    assert first_pixels(open_film(["film"])) == [0, 1, 2]


def test_two_files_of_one_frame_are_refused(in_folder):
    save("film/t1.png", "film/t01.png", "film/t2.png")
    with pytest.raises(InputError, match="are both frame 1; remove one"):
        open_film(["film"])


def test_files_out_of_order_are_refused(in_folder):
    save("t1.png", "t10.png", "t2.png")
    with pytest.raises(
        InputError, match=r"t10.png comes before t2.png, but its number is higher; give the frames in order"
    ):
        open_film(["t1.png", "t10.png", "t2.png"])


def test_frames_of_another_size_are_refused(in_folder):
    save("film/t0.png", "film/t1.png")
    write_image("film/t2.png", np.zeros((4, 7, 1), np.uint8))
    with pytest.raises(InputError, match=r"t2.png: has 4 x 7 pixels and 1 channel, but .*t0.png has 4 x 6 pixels"):
        list(open_film(["film"]))


def test_a_folder_without_frames_is_refused(in_folder):
    Path("film/01").mkdir(parents=True)
    with pytest.raises(InputError, match="film: holds no image, but the folder 01; give the one that holds the frames"):
        open_film(["film"])
    with pytest.raises(InputError, match="01: holds no image; files must end in one of"):
        open_film(["film/01"])
    with pytest.raises(InputError, match="nowhere: no such file"):
        open_film(["nowhere"])
    with pytest.raises(InputError, match="No film is given"):
        open_film([])


def test_one_image_is_no_film(in_folder):
    save("cells.png")
    with pytest.raises(InputError, match=r"cells.png: is one image; a film is a folder of frames"):
        open_film(["cells.png"])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("shape", "axes", "given", "frame"),
    [
        ((5, 4, 6), "TYX", "", (4, 6, 1)),
        ((5, 4, 6), "", "", (4, 6, 1)),  # unnamed
        ((3, 4, 6), "", "TYX", (4, 6, 1)),
        ((5, 4, 6), "ZYX", "TYX", (4, 6, 1)),
        ((5, 2, 4, 6), "TCYX", "", (4, 6, 2)),
        ((2, 5, 4, 6), "CTYX", "", (4, 6, 2)),
        ((5, 1, 4, 6), "TZYX", "", (4, 6, 1)),
    ],
)
def test_a_stack_is_a_film(in_folder, shape, axes, given, frame, compression):
    stack = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(
        "film.tif", stack, metadata={"axes": axes} if axes else None, compression=compression, photometric="minisblack"
    )
    film = open_film(["film.tif"], axes=given)
    letters = given or axes or "TYX"
    moved = np.moveaxis(stack, letters.index("T"), 0)
    assert film.name == "film"
    assert [one.shape for one in film] == [frame] * len(moved)
    assert [int(one[0, 1, 0]) for one in film] == [int(one.reshape(-1, 4, 6)[0, 0, 1]) for one in moved]


@pytest.mark.parametrize(
    ("shape", "axes", "given", "message"),
    [
        ((5, 4, 6), "ZYX", "", "is a stack of 5 x 4 x 6 with the axes ZYX, which does not say what the frames are"),
        ((3, 4, 6), "", "", "is a stack of 3 x 4 x 6 with the axes .YX, which does not say"),
        ((5, 4, 6), "TYX", "TCYX", "has 3 axes \\(5 x 4 x 6\\), but --axes TCYX names 4"),
        ((5, 2, 4, 6), "TZYX", "", "does not say what the frames are"),
    ],
)
def test_a_stack_whose_frames_cannot_be_told_is_refused(in_folder, shape, axes, given, message):
    tifffile.imwrite(
        "film.tif", np.zeros(shape, np.uint8), metadata={"axes": axes} if axes else None, photometric="minisblack"
    )
    with pytest.raises(InputError, match=message):
        open_film(["film.tif"], axes=given)


def test_a_damaged_stack_is_refused(in_folder):
    tifffile.imwrite("film.tif", np.zeros((5, 40, 60), np.uint8), metadata={"axes": "TYX"})
    content = Path("film.tif").read_bytes()
    Path("film.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"film.tif"):
        list(open_film(["film.tif"]))


def test_label_images_are_films_too(in_folder):
    tifffile.imwrite("labels.tif", np.arange(5 * 24, dtype=np.uint16).reshape(5, 4, 6), metadata={"axes": "TYX"})
    assert [frame.shape for frame in open_labels(["labels.tif"])] == [(4, 6)] * 5
    save("out/t0_labels.tif", "out/t1_labels.tif", "out/t0_overlay.png", "out/t1_overlay.png")
    assert len(open_labels(["out"])) == 2
    tifffile.imwrite("depth.tif", np.zeros((5, 4, 6), np.float32), metadata={"axes": "TYX"})
    with pytest.raises(InputError, match=r"depth.tif, frame 0: is an array of float32"):
        list(open_labels(["depth.tif"]))
