"""The order in which a phase sees its images: drawn from the seed and the epoch alone, so that a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch


def generator(*numbers: int) -> torch.Generator:
    """A generator for this combination of numbers: (0, 1) and (1, 0) draw differently."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (1 << 63)
    return torch.Generator().manual_seed(seed)


def shuffled(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """All indices below `count`, in the order of this epoch, in groups of a batch."""
    return _grouped(torch.randperm(count, generator=generator(seed, epoch)).tolist(), batch_size)


def balanced(labels: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """As many indices as there are labels, as many of each class as of any other (or one more), in groups of a batch.

    Of a class that has fewer images they come again, each equally often; of one that has more, other epochs draw the others.
    """
    drawing = generator(seed, epoch)
    members: dict[int, list[int]] = {label: [] for label in sorted(set(labels))}
    for index, label in enumerate(labels):
        members[label].append(index)
    share, rest = divmod(len(labels), len(members))
    more = set(torch.randperm(len(members), generator=drawing)[:rest].tolist())
    chosen: list[int] = []
    for number, indices in enumerate(members.values()):
        chosen += islice(_forever(indices, drawing), share + (number in more))
    order = torch.randperm(len(chosen), generator=drawing).tolist()
    return _grouped([chosen[place] for place in order], batch_size)


def _forever(indices: Sequence[int], drawing: torch.Generator) -> Iterator[int]:
    """The indices in a random order, again and again."""
    while True:
        yield from (indices[place] for place in torch.randperm(len(indices), generator=drawing).tolist())


def _grouped(order: list[int], batch_size: int) -> list[list[int]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
