"""The examples in the docstrings of public names: each name has one, and it gives what it says."""

import doctest
import inspect
from collections.abc import Iterator

import pytest
import torch

import attractor
from attractor.errors import InputError
from attractor.instances import Instances
from attractor.prediction.image import Segmenter

CLASSES = (Instances,)  # whose public methods have an example each
METHODS = (Segmenter.segment, Segmenter.segment_many)  # that are used from Python
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def public_names() -> Iterator[tuple[str, object]]:
    """What `attractor.__all__` names, and the public methods of public classes."""
    for name in attractor.__all__:
        if (value := getattr(attractor, name)) is not InputError:  # which is caught, not called
            yield f"attractor.{name}", value
    for owner in CLASSES:
        for name, value in vars(owner).items():
            if not name.startswith("_") and (inspect.isroutine(value) or isinstance(value, classmethod)):
                yield f"{owner.__name__}.{name}", getattr(owner, name)
    for method in METHODS:
        yield f"Segmenter.{method.__name__}", method


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in public_names()])
def test_a_public_name_has_an_example_that_gives_what_it_says(name, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    function = inspect.unwrap(value)  # the checker of shapes hides where it was written
    names = dict(vars(inspect.getmodule(function)))
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=names)
    assert example.examples, f"{name} has no example in its docstring"
    outcome = doctest.DocTestRunner(optionflags=OPTIONS).run(example)
    assert outcome.failed == 0, capsys.readouterr().out
