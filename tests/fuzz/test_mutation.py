"""The law is enforced: whatever breaks it fails."""

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from tests.fuzz.mutation import Guard, cases, edits, mutants

from attractor.errors import InputError

CORPUS = {"numbers": b"width 12 height 34\n" * 9, "bytes": bytes(range(256)), "one": b"1"}


def refuse(message: str, cause: BaseException | None = None) -> None:
    raise InputError(message) from cause


def test_damage_is_the_same_each_time_and_never_none():
    first, again = (list(mutants(CORPUS, 600)) for _ in range(2))
    assert first == again
    assert len(first) == cases(600)
    assert {name for name, _ in first} == set(CORPUS)
    assert sum(file == CORPUS[name] for name, file in first) < len(first) / 20
    assert first != list(mutants(CORPUS, 600, seed=1))


@given(edits(CORPUS))
def test_edits_give_bytes(file):
    assert isinstance(file, bytes)
    assert len(file) <= 256 + 6 * 8


def test_a_value_and_an_input_error_are_both_well(guarded: Guard):
    assert guarded(lambda: 7) == 7
    assert guarded(lambda: refuse("a.png: is damaged.")) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: {}["a"], "KeyError"),
        (lambda: refuse(""), "the message is empty"),
        (lambda: refuse("a" * 3000), "the message has 3,000 letters"),
        (lambda: refuse("a\0b"), "control characters"),
        (lambda: refuse("too large", MemoryError()), "ran out of memory"),
        (lambda: np.ones(5 << 28, np.uint8), r"took 13\d\d MB"),
        (lambda: Path("somewhere").write_text("here"), "opened .somewhere. to write"),
        (lambda: Path("somewhere").mkdir(), "os.mkdir"),
    ],
)
def test_whatever_breaks_the_law_fails(guarded, tmp_path, monkeypatch, call, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pytest.fail.Exception, match=message):
        guarded(call, what="a case")


def test_what_takes_too_long_fails(guarded, monkeypatch):
    monkeypatch.setattr(time, "process_time", iter([0.0, 6.0]).__next__)
    with pytest.raises(pytest.fail.Exception, match=r"took 6\.0 s"):
        guarded(lambda: None)


def test_writing_is_allowed_where_it_is_said(guarded, tmp_path):
    guarded(lambda: (tmp_path / "a").write_text("here"), writes_to=tmp_path)
    with pytest.raises(pytest.fail.Exception, match="to write"):
        guarded(lambda: (tmp_path / "a").write_text("here"), writes_to=tmp_path / "b")
