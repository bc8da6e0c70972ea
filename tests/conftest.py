"""One thread, and where the real images are."""

import os

# before numpy and torch start their threads: on a shared machine a second one slows small tests
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", metavar="DIR", help="folder of the real images: nuclei, fibroblasts, street")


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
