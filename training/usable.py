"""Every image of a data set decoded before anything is trained or measured on it, so that all bad ones are named at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from rankone.model.folders import name_of
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import DataError, DataSet, Split
from rankone.training.data.picture import picture
from rankone.training.processes import Resources
from rankone.training.progress import progress

Fault = tuple[str, int, str]
"""A split, the index of an image in it, and what is wrong with the file, which is named."""


def usable(
    data: DataSet,
    spec: Preprocessing,
    resources: Resources,
    *,
    skip_bad: bool = False,
    splits: Sequence[str] = ("train", "validation", "test"),
) -> tuple[DataSet, tuple[str, ...]]:
    """Decodes every image of `splits` as training does, on all cores; each process decodes its share.

    Returns:
        The data set without the images that cannot be decoded, and a sentence for each of these, which names the file.

    Raises:
        DataError: images that cannot be decoded, all of them; with `skip_bad`, only if a class has no others.
        Interrupted: a stop was requested.
    """
    chosen = {name: split for name, split in data.splits.items() if name in splits}
    tasks = [(name, index) for name, split in chosen.items() for index in range(len(split))]
    check = partial(_fault, chosen, spec)
    found = list(_in_threads(check, resources.processes.shard(tasks), resources))
    faults = sorted(resources.processes.gather(found))
    if not faults:
        return data, ()
    sentences = tuple(f"{reason} ({name})" for name, _, reason in faults)
    if not skip_bad:
        listed = "\n".join(f"  {sentence}" for sentence in sentences)
        raise DataError(
            f"{len(faults):,} of {len(tasks):,} images cannot be used; mend or remove them, or give --skip-bad to go on "
            f"without them:\n{listed}"
        )
    bad = {(name, index) for name, index, _ in faults}
    kept: dict[str, Any] = {
        n: split.at(i for i in range(len(split)) if (n, i) not in bad) for n, split in chosen.items()
    }
    _check_classes(data, kept)
    return replace(data, **kept), sentences


def _in_threads(
    check: Callable[[tuple[str, int]], Fault | None], tasks: Sequence[tuple[str, int]], resources: Resources
) -> Iterator[Fault]:
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        shown = resources.processes.is_main
        for fault in progress(pool.map(check, tasks), [1] * len(tasks), "checking images", shown=shown):
            resources.check_stop("stopped while the images were checked; nothing is trained yet")
            if fault is not None:
                yield fault
    finally:
        pool.shutdown(cancel_futures=True)


def _fault(splits: dict[str, Split], spec: Preprocessing, task: tuple[str, int]) -> Fault | None:
    name, index = task
    split = splits[name]
    try:
        picture(split.paths[index], split.banner, spec)
    except DataError as error:
        return name, index, str(error)
    except MemoryError:
        return name, index, f"{name_of(split.paths[index])}: not enough memory to decode it"
    return None


def _check_classes(data: DataSet, kept: dict[str, Split]) -> None:
    """Raises DataError if a class had images to train on or to test with, and every one of them is bad."""
    emptied = [
        f"{data.classes[label]} ({name})"
        for name, split in kept.items()
        for label in sorted(set(data.splits[name].labels) - set(split.labels))
        if name != "validation"
    ]
    if emptied:
        raise DataError(
            f"no image of these classes can be used: {', '.join(emptied)}; `rankone data verify` names the files"
        )
