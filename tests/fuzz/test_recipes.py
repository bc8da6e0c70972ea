"""Damaged recipes: a recipe, or one sentence on what is wrong with it."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.mutation import cases, edits, mutants

from attractor.recipe import read_recipe, recipe_of, write_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
CORPUS = {path.name: path.read_bytes() for path in sorted(RECIPES.glob("*.toml"))}
WHOLE = recipe_of({"data": {"train": "x"}}).model_dump(exclude={"stages"})
KEYS = [f"{section}.{key}" for section, keys in WHOLE.items() for key in keys]
ODD = [
    *("nan", "inf", "-inf", "-1", "1e999", "0x" + "f" * 5000, "9" * 5000, "1_000", "٣", "true", "1979-05-27"),
    *("[]", "{}", "[" * 5000, "[[1, 2], [3]]", "{a = {b = {c = {d = {e = {f = {g = 1}}}}}}}"),
    *('""', "''", "x" * 5000, "\udc80", '"\\u0000"'),
]


@pytest.fixture
def reads(guarded, tmp_path):
    """Reads a recipe's bytes with changes; what comes back can be written and read again."""
    path, copy = tmp_path / "r.toml", tmp_path / "copy.toml"

    def read(content, changes=(), what=""):
        path.write_bytes(content)
        recipe = guarded(lambda: read_recipe(path, changes), what=what)
        if recipe is not None:
            write_recipe(copy, recipe)
            written, given = (json.loads(one.model_dump_json()) for one in (read_recipe(copy), recipe))
            assert written == given
        return recipe

    return read


def test_damaged_recipes_are_read_or_refused(reads):
    read = sum(reads(content, what=f"{name} {n}") is not None for n, (name, content) in enumerate(mutants(CORPUS, 400)))
    assert 0 < read < cases(400)


def test_edited_recipes_are_read_or_refused(reads):
    @settings(max_examples=cases(100), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(edits(CORPUS))
    def holds(content):
        reads(content)

    holds()


@pytest.mark.parametrize("key", KEYS)
def test_odd_values_are_read_or_refused(reads, key):
    for value in ODD:
        reads(CORPUS["nuclei.toml"], [f"{key}={value}"], what=f"{key}={value[:20]}")


def test_any_text_after_set_is_read_or_refused(reads):
    texts = st.text(st.characters(codec=None), max_size=12)

    @settings(max_examples=cases(200), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(KEYS) | texts, texts)
    def holds(key, value):
        reads(CORPUS["nuclei.toml"], [f"{key}={value}"])

    holds()
