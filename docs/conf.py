"""How the pages are built: `make docs` writes them to docs/_build/html."""

import re

from sphinx.application import Sphinx

import attractor

project = "attractor"
version = release = attractor.__version__
copyright = "the attractor developers, BSD-3-Clause"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
highlight_language = "text"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
nitpick_ignore_regex = [("py:class", ".*")]  # types in signatures need no page

html_theme = "furo"
html_title = "attractor"
html_static_path = []
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """What no extension does."""
    app.connect("source-read", without_links_outside)


def without_links_outside(app: Sphinx, page: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages become their words: they lead nowhere from a web page."""
    source[0] = re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?!\w+\.md)[^)]*/[^)]*\)", r"\1", source[0])
