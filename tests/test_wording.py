"""Wording that several messages share."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from attractor.wording import counted, duration, install, share

PROJECT = Path(__file__).parents[1]


@pytest.mark.parametrize(("n", "words"), [(0, "0 nuclei"), (1, "1 nucleus"), (1204, "1,204 nuclei")])
def test_numbers_have_their_noun(n, words):
    assert counted(n, "nucleus", "nuclei") == words
    assert counted(2, "image") == "2 images"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (40, "40 seconds"),
        (100, "2 minutes"),
        (1500, "25 minutes"),
        (7200, "2 h"),
        (12_060, "3 h 21 min"),
    ],
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_shares_have_four_characters():
    assert [share(value) for value in (0.8125, 0.9996, 1.0, float("nan"))] == [".812", "1.00", "1.00", "-"]


def test_numbers_of_objects_are_rounded_beside_shares():
    assert [share(value) for value in (1.896, 10.706)] == ["1.90", "10.71"]


def test_what_is_missing_can_be_installed_as_messages_say():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in extras:
        assert f'pip install ".[{extra}]"' in install(extra)


def test_nothing_is_said_to_be_on_an_index_where_it_is_not():
    texts = [*Path(str(files("attractor"))).rglob("*.py"), PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]
    assert [path for path in texts if 'pip install "attractor' in path.read_text()] == []
