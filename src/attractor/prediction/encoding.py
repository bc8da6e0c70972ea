"""Results as the content of files: tables, COCO and pictures. Formats that we also read are written in `datasets`.

The same result always gives the same bytes.

Shapes: `h` rows, `w` columns, `k` objects, `r` runs.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from attractor.instances import Instances
from attractor.measurements import WHOLE
from attractor.prediction.result import Table


def encode_csv(table: Table) -> bytes:
    """A table as UTF-8 text; fractions have six digits."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row)
    return file.getvalue().encode()


def encode_parquet(table: Table) -> bytes:
    """A table for pandas, polars and the like; columns have the same types in every file, even in one without rows."""
    import pyarrow
    from pyarrow import parquet

    types = {name: pyarrow.int64() if name in WHOLE else pyarrow.float64() for name in table}
    types["class"] = pyarrow.string()
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(table, pyarrow.schema(list(types.items()))), file)
    return file.getvalue()


def encode_coco(found: Instances, class_names: Sequence[str], name: str) -> bytes:
    """A COCO document of one image, whose annotations have scores, masks as compressed runs, and ids from 1.

    Masks that overlap are written whole. An object without pixels is left out.
    """
    from attractor.datasets.coco_masks import entry, runs_of  # which imports all layouts

    height, width = found.labels.shape
    shape = height, width
    objects = zip(found.classes.tolist(), found.scores.tolist(), runs_of(found), strict=True)
    visible = [one for one in objects if one[2][1::2].any()]
    annotations = [
        {"id": number, "image_id": 1, "category_id": category, **entry(runs, shape), "iscrowd": 0, "score": score}
        for number, (category, score, runs) in enumerate(visible, 1)
    ]
    document = {
        "images": [{"id": 1, "file_name": name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": k, "name": class_name} for k, class_name in enumerate(class_names, 1)],
    }
    return json.dumps(document).encode()


def encode_picture(picture: Shaped[np.ndarray, "h w 3"]) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=3)  # a third of the time of level 6, 3 % larger
    return file.getvalue()
