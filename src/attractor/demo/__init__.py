"""Two annotated pictures of nuclei that come with the package: what `attractor demo` segments, and the pages show.

The folder is a data set of `images/` and `labels/`. Both pictures are of the test images of the model `nuclei`, which
training, tuning and choosing never saw; of those with at least 40 nuclei each is the one of its kind whose score, AP at
IoU .50, lies nearest to the median of all of its kind. Their licence is in `LICENCE.txt` beside them.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
PICTURES = {path.stem: path for path in sorted(FOLDER.glob("images/*.png"))}
