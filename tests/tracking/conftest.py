"""A film of two objects, one of which divides, as files."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from attractor.images import write_image, write_labels

LIST = "1 0 4 0\n2 0 1 0\n3 2 4 2\n4 2 4 2\n"


def frame(t: int) -> np.ndarray:
    """Labels of the frame: 1 stays; 2 is 3 and 4 from frame 2 on."""
    labels = np.zeros((40, 48), np.int32)
    labels[4:14, 4 + t : 14 + t] = 1
    if t < 2:
        labels[22:34, 14:34] = 2
    else:
        labels[22:34, 13 - t : 22 - t], labels[22:34, 26 + t : 35 + t] = 3, 4
    return labels


@pytest.fixture
def film(in_folder: Path) -> Path:
    """The folder `films` with the film 01 as images, its truth, and label images; the test works in its parent."""
    films = in_folder / "films"
    for part in ("01", "labels", "01_GT/TRA", "01_GT/SEG"):
        (films / part).mkdir(parents=True)
    for t in range(5):
        labels = frame(t)
        write_image(films / f"01/t{t:03}.png", ((labels > 0) * 150 + 20).astype(np.uint8)[..., None])
        write_labels(films / f"labels/t{t:03}.png", np.where(labels == 1, 7, labels))
        tifffile.imwrite(films / f"01_GT/TRA/man_track{t:03}.tif", labels.astype(np.uint16))
        if t % 2 == 0:
            tifffile.imwrite(films / f"01_GT/SEG/man_seg{t:03}.tif", labels.astype(np.uint16))
    (films / "01_GT/TRA/man_track.txt").write_text(LIST)
    return Path("films")
