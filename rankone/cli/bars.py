"""Progress bars on standard error, for work on an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

from rankone.index.backup import Tell
from rankone.index.source import Source, reading


@contextmanager
def progress(source: Source, doing: str) -> Iterator[Tell]:
    """A bar of all items of an index; what it yields is called with the number that were done since."""
    with reading(source) as (reader, _):
        total = reader.count()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def pages(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of pages; what it yields is called with the pages that are left, and of all."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda left, total: bar.update(task, completed=total - left, total=total)
