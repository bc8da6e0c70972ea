"""The wheel and the sdist, each installed in a clean environment without extras, under every Python that is at hand.

Takes minutes and the package index: `pytest tests/packaging --packages`.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import attractor.web

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13")
COMMANDS = (
    "segment",
    "track",
    "train",
    "correct",
    "evaluate",
    "compare",
    "calibrate",
    "export",
    "serve",
    "check",
    "convert",
    "models",
    "demo",
)

# What training, plots and other formats need is not installed; nothing that is public may ask for it unasked.
IMPORTS = """
import sys, attractor
from attractor.cli import COMMANDS
for name in attractor.__all__:
    getattr(attractor, name)
absent = {"lightning", "tensorboard", "matplotlib", "jinja2", "onnx", "openvino", "pyarrow", "roifile", "torchvision"}
assert not absent & set(sys.modules), absent & set(sys.modules)
print(",".join(command.__name__ for command in COMMANDS))
"""


def python_of(version: str) -> str | None:
    """The interpreter of a version: on the path, or one that pyenv keeps."""
    kept = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for candidate in (f"python{version}", *map(str, kept)):
        path = shutil.which(candidate)
        if path is not None and _run(path, "-c", "import sys; print(sys.version)", check=False).startswith(version):
            return path
    return None


def _run(*command: object, check: bool = True, **options: object) -> str:
    """What a command prints; its failure is the test's, with all that it said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the sdist of a clean copy of the tree."""
    if not request.config.getoption("--packages"):
        pytest.skip("takes minutes and the package index: pytest tests/packaging --packages")
    folder = tmp_path_factory.mktemp("packages")
    clean = folder / "clean"
    _run("git", "clone", "--quiet", ROOT, clean)
    _run(sys.executable, "-m", "venv", folder / "builder")
    _run(folder / "builder/bin/python", "-m", "pip", "install", "--quiet", "build")
    _run(folder / "builder/bin/python", "-m", "build", "--outdir", folder, clean)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_has_the_page_and_the_licences_of_what_it_holds(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = wheel.namelist()
    page = Path(attractor.web.__file__).parent / "page"
    files = [path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()]
    assert [name for name in files if f"attractor/web/page/{name}" not in names] == []
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert [name for name in names if "dist-info" in name and name.endswith("openseadragon.LICENCE.txt")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_installation_without_extras_works(built: dict[str, Path], version: str, kind: str, tmp_path: Path) -> None:
    python = python_of(version)
    if python is None:
        pytest.skip(f"Python {version} is not on this machine")
    if kind == "sdist" and version != VERSIONS[0]:
        pytest.skip("the sdist gives the same wheel under every Python; it is tried under the oldest")
    _run(python, "-m", "venv", tmp_path / "env")
    pip = (tmp_path / "env/bin/python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    _run(*pip, torch)
    _run(*pip, built[kind])
    attractor = tmp_path / "env/bin/attractor"
    names = _run(tmp_path / "env/bin/python", "-W", "error", "-c", IMPORTS, cwd=tmp_path)
    assert names.strip().split(",") == list(COMMANDS)
    for command in COMMANDS:
        assert "Usage: attractor" in _run(attractor, command, "--help", cwd=tmp_path)
    assert "nuclei" in _run(attractor, "models", cwd=tmp_path)
    _run(attractor, "demo", "--out", tmp_path / "demo", cwd=tmp_path)
    assert len(list((tmp_path / "demo").glob("*_labels.tif"))) == 3
    refused = subprocess.run([attractor, "train", tmp_path / "demo"], capture_output=True, text=True, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Training needs lightning and tensorboard, not installed here. ")
