"""Where the kernels for GPUs can run."""

from __future__ import annotations

import logging
import os
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch

logger = logging.getLogger(__name__)

OLDEST = (7, 0)  # compute capability that Triton compiles for


@cache
def runs_triton(device_type: str) -> bool:
    """Whether objects can be grouped where the maps are, beside the CPU: with CUDA and Triton, if that can compile."""
    if device_type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability() < OLDEST:
        return False
    compiler = os.environ.get("CC") or which("gcc") or which("clang")
    header = Path(sysconfig.get_config_h_filename()).with_name("Python.h")
    if compiler and header.exists():
        return True
    logger.warning(
        "Objects are grouped on the processor, with the same result, but more slowly. To group them on the GPU, Triton "
        "needs a C compiler (found: %s) and Python's header files (found: %s).",
        compiler or "none",
        header if header.exists() else "none",
    )
    return False
