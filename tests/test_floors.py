"""What holds the house up: shapes are checked in tests, and the lower floors need no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import attractor
from attractor.instances import overlap

SOURCE = Path(attractor.__file__).parent


def test_a_wrong_shape_is_caught():
    with pytest.raises(TypeCheckError):
        overlap(np.zeros((2, 2), np.int32), np.zeros((2, 3), np.int32))


def test_a_wrong_number_type_is_caught():
    with pytest.raises(TypeCheckError):
        overlap(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    "module",
    [
        "attractor",
        "attractor.instances",
        "attractor.datasets",
        "attractor.metrics",
        "attractor.measurements",
        "attractor.tracking",
        "attractor.overlays",
        "attractor.plots",
        "attractor.description",
        "attractor.session",
        "attractor.web.app",
        "attractor.prediction.clients",
        "attractor.prediction.options",
        "attractor.napari.client",
        "attractor.napari.files",
    ],
)
def test_scoring_and_serving_need_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_needs_torchvision():
    imported = {
        name.split(".")[0]
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _names(node)
    }
    assert "numpy" in imported
    assert "torchvision" not in imported


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
