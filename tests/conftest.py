"""One thread, and where the real images are."""

import os
import shutil

# before numpy and torch start their threads: on a shared machine a second one slows small tests
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"
# its default; while it is set, what is called here leaves the memory of this process to the system
os.environ.setdefault("MALLOC_ARENA_TEST", "8")

from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
if not torch.cuda.is_available():  # before Triton is imported: its kernels can then only be interpreted
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--packages", action="store_true", help="build and install the packages, which takes minutes")
    parser.addoption("--data", metavar="DIR", help="folder of the real images: nuclei, fibroblasts, street, films")


@pytest.fixture(scope="session")
def data_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of real images; tests that need it are skipped without it."""
    given = request.config.getoption("--data")
    if given is None:
        pytest.skip("needs real images: pytest --data DIR")
    folder = Path(given)
    if not folder.is_dir():
        pytest.skip(f"needs real images, but there is no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an untrained model for grey images that finds discs of a few pixels everywhere."""
    from attractor.description import Description
    from attractor.model import Model

    torch.manual_seed(0)
    model = Model(
        Description(
            method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",), object_size=10.0
        )
    )
    with torch.no_grad():
        model.method.network.decoders[1][-1].bias.fill_(2.0)  # of the seed score: all is foreground
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    model.save(path)
    return path


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    code: int
    out: str
    error: str


@pytest.fixture
def attractor_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run a command in this process; whatever it prints must be free of a traceback."""
    from attractor.cli import main

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Answer(code, printed.out, printed.err)

    return run


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that the test works in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of five images of squares, with a column `kind`; tests leave it as it is."""
    from attractor.images import write_image, write_labels

    folder, random = tmp_path_factory.mktemp("data") / "squares", np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for k in range(5):
        labels = np.zeros((40, 48), np.int32)
        for n, (row, column) in enumerate([(4, 4), (4, 24), (22, 14 + k)]):
            labels[row : row + 10, column : column + 10] = n + 1
        pixels = (labels > 0) * 200 + random.integers(0, 40, labels.shape)
        write_image(folder / f"images/i{k}.png", pixels.astype(np.uint8)[..., None])
        write_labels(folder / f"labels/i{k}.png", labels)
    rows = ["image,kind", *(f"i{k},{'even' if k % 2 == 0 else 'odd'}" for k in range(5))]
    (folder / "images.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def annotated(in_folder: Path, squares: Path) -> Path:
    """A copy of that data set in the folder that the test works in."""
    shutil.copytree(squares, in_folder / "squares")
    return Path("squares")
