"""The toys of the pages on adding something: their code is run as it stands there."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def run_page(name: str, **names: object) -> dict[str, object]:
    """What the Python blocks of a page leave behind, run one after another.

    Args:
        name: of the page, without its ending.
        names: that its last line needs, such as the dict that it adds to.
    """
    page = DOCS / f"{name}.md"
    scope: dict[str, object] = {"__name__": name, **names}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(code, str(page), "exec"), scope)
    return scope
