"""How the commands print lines, tables and progress, and write files of numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

T = TypeVar("T")


def say(line: str) -> None:
    """Print a line on stdout as it is."""
    Console().print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def complain(line: str, console: Console | None = None) -> None:
    """Print one line on stderr, above the bar where a console draws one."""
    line = " ".join(line.splitlines())
    if console is None:
        print(line, file=sys.stderr)  # Rich would import more, for which there may be no memory left
    else:
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def show(*tables: Table) -> None:
    """Print tables on stdout."""
    for table in tables:
        Console().print(table)


@contextmanager
def bar(what: str, total: int | None = None) -> Iterator[tuple[Callable[..., None], Console]]:
    """A bar on stderr, if that is a terminal: what to tell it, as in Rich's `Progress.update`, and its console."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield partial(progress.update, task), console


@contextmanager
def progress(what: str, total: int) -> Iterator[tuple[Callable[[], None], Console]]:
    """Such a bar for steps that are alike: what to call after each, and where to print meanwhile."""
    with bar(what, total) as (update, console):
        yield partial(update, advance=1), console


def with_progress(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a bar."""
    with progress(what, total) as (advance, _):
        for item in items:
            yield item
            advance()


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a file of numbers, whole or not at all."""
    from attractor.images import atomic

    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
