"""The progress of work on images: a bar on a terminal, a line every half minute if the output is a file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")

_INTERVAL_S: Final = 30.0


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} images/s")


_COLUMNS: Final = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
    _Speed(),
    TimeRemainingColumn(),
)


def progress(
    items: Iterable[Item], counts: Sequence[int], title: str, *, done: int = 0, shown: bool = True
) -> Iterator[Item]:
    """Yields the items and shows speed and remaining time.

    Args:
        items: one for each entry of `counts`.
        counts: number of images of each item.
        title: names the work.
        done: images that were done before.
        shown: False in every process but the main one.
    """
    console = Console(highlight=False)
    if not shown or not counts:
        yield from items
        return
    total, started, seen, printed = done + sum(counts), time.monotonic(), 0, time.monotonic()
    with Progress(*_COLUMNS, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total, completed=done)
        for item, count in zip(items, counts, strict=True):
            yield item
            seen += count
            bar.advance(task, count)
            if not console.is_terminal and (now := time.monotonic()) - printed >= _INTERVAL_S:
                printed = now
                console.print(_line(title, done + seen, total, seen / (now - started)), soft_wrap=True, markup=False)


def print_line(text: str) -> None:
    """Prints a line for the user."""
    Console(highlight=False).print(text, soft_wrap=True, markup=False)


def _line(title: str, done: int, total: int, speed: float) -> str:
    minutes, seconds = divmod(round((total - done) / speed), 60)
    return f"{title}: {done:,} of {total:,} images, {speed:.1f} images/s, {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left"
