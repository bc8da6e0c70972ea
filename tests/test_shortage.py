"""Errors that say that a machine has too little of something, and what is to be done."""

import errno

import pytest

from attractor.errors import InputError
from attractor.images import read_image
from attractor.shortage import cure, shortage_behind


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "other programs"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 MiB"), "smaller images"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "smaller images"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "smaller images"),
        (ImportError("libgomp.so: cannot allocate memory in static TLS block"), "smaller images"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError("DataLoader worker (pid 30043) is killed by signal: Killed. "), "smaller images"),
        (SystemError("error return without exception set"), "smaller images"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("unable to open file <a.safetensors> in read-only mode: Too many open files (24)"), "ulimit -n"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
    ],
)
def test_each_shortage_has_its_cure(error, words):
    assert words in str(cure(error))
    assert shortage_behind(error) is error


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOENT, "No such file"), ImportError("No module")])
def test_other_errors_have_none(error):
    assert cure(error) is None
    assert shortage_behind(error) is None


def test_the_shortage_is_found_behind_the_import_that_it_made_fail():
    first = OSError(errno.EMFILE, "Too many open files")
    last = ImportError("could not be imported, perhaps a bad installation")
    last.__cause__ = first
    assert shortage_behind(last) is first


def test_an_image_for_which_no_file_can_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("attractor.images.reading.first_bytes", refuse)
    with pytest.raises(InputError, match=r"cannot be read: Too many open files; raise the limit .*ulimit -n"):
        read_image(tmp_path / "a.png")
