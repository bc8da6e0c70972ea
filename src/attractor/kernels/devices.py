"""What is known about devices: which kernels run there, in which dtype they are fast, and what they are called."""

from __future__ import annotations

import logging
import os
import platform
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import torch

logger = logging.getLogger(__name__)

OLDEST = (7, 0)  # lowest compute capability that Triton compiles for
OLDEST_FOR_BFLOAT16 = (8, 0)  # lowest compute capability whose matrix units multiply in bfloat16
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")  # of processors that were measured; those of ARM were not
CPU_DETAILS = Path("/proc/cpuinfo")  # Linux


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions that make bfloat16 several times as fast as float32.

    It follows from what the device is, never from a trial, so that the same machine always gives the same answer. On
    Apple's MPS it was never measured and is not taken.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= OLDEST_FOR_BFLOAT16
    return device.type == "cpu" and not cpu_instructions().isdisjoint(BFLOAT16_INSTRUCTIONS)


@cache
def cpu_instructions() -> frozenset[str]:
    """Names of the CPU's instruction sets, from torch or else from Linux; none if neither tells."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest torch that will do
    if ask is not None:
        return frozenset(name for name, value in ask().items() if value is True)
    flags = _cpu_detail("flags") or ""
    return frozenset(flags.split())


def device_name(device: torch.device) -> str:
    """The maker's name for the device, such as "AMD EPYC" or "NVIDIA H100"; its architecture if that is not known."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_detail("model name") or platform.processor() or platform.machine()


def _cpu_detail(name: str) -> str | None:
    """What Linux says about the first core under this name."""
    if not CPU_DETAILS.is_file():
        return None
    rows = (line.partition(":") for line in CPU_DETAILS.read_text().splitlines())
    return next((value.strip() for key, _, value in rows if key.strip() == name), None)


@cache
def runs_triton(device_type: str) -> bool:
    """Whether objects can be grouped on such a device, beside the CPU: with CUDA and Triton, if that can compile."""
    if device_type != "cuda" or find_spec("triton") is None or torch.cuda.get_device_capability() < OLDEST:
        return False
    compiler = os.environ.get("CC") or which("gcc") or which("clang")
    header = Path(sysconfig.get_config_h_filename()).with_name("Python.h")
    if compiler and header.exists():
        return True
    logger.warning(
        "Objects are grouped on the CPU, with the same result, but more slowly. To group them on the GPU, Triton "
        "needs a C compiler (found: %s) and Python's header files (found: %s).",
        compiler or "none",
        header if header.exists() else "none",
    )
    return False
