"""Images the way up that a camera or scanner noted (EXIF, and tag 274 of TIFF).

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

TAG = 274
TURNED = (5, 6, 7, 8)  # rows are stored as columns


def upright(array: Shaped[np.ndarray, "h w *c"], orientation: object) -> Shaped[np.ndarray, "i j *c"]:
    """The image as viewers show it; unchanged where the orientation is not one of 2 to 8.

    Source: EXIF 2.3, section 4.6.4: 2 is mirrored, 3 upside down, 6 to be turned clockwise, 8 counterclockwise.
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array
