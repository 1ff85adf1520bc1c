"""Tables in Markdown, and what stands in their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], num_names: int = 1) -> str:
    """A table; all columns but the first `num_names` are numbers."""
    rule = ["---"] * num_names + ["---:"] * (len(head) - num_names)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *rows))


def spread(values: Sequence[float], pattern: str = "{:.3f}", dash: str = " - ") -> str:
    """Mean, lowest and highest; a single value alone, and nothing of none."""
    if len(values) <= 1:
        return "".join(map(pattern.format, values))
    return f"{pattern.format(mean(values))} ({pattern.format(min(values))}{dash}{pattern.format(max(values))})"
