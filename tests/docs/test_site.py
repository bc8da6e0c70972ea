"""The pages as a site, as `make docs` builds it: a link that leads nowhere or a name without a page is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

import attractor

DOCS = Path(__file__).parents[2] / "docs"


def test_the_site_is_built_without_a_warning(tmp_path):
    for package in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(package)
    call = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going", str(DOCS), str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "start.html").is_file()


def test_every_picture_is_shown_and_has_a_licence():
    text = "".join(page.read_text() for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"])
    licence = (DOCS / "images/LICENCE.txt").read_text()
    for picture in [*DOCS.glob("images/*.png"), *DOCS.glob("images/*.jpg")]:
        assert f"images/{picture.name})" in text, f"{picture.name} is on no page"
        group = picture.name.split("-")[0] + "-*" + picture.suffix
        assert picture.name in licence or group in licence, f"{picture.name} has no licence"


def test_every_public_name_has_its_place():
    page = (DOCS / "python.md").read_text()
    assert [name for name in attractor.__all__ if f":: attractor.{name}\n" not in page] == []
