"""`rankone data verify`: every file of a data set looked at, and every problem named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from model.preprocessing import ImageRejected, decode
from training.datasets.dataset import OWN_IMAGES, DataError, DataSet, Split, sha256_of


@dataclass(frozen=True)
class Verified:
    """What was found: images and classes by split, and every problem in a sentence."""

    counts: Mapping[str, tuple[int, int]]
    problems: tuple[str, ...]


def verify(data: DataSet, published: Mapping[str, int] | None = None, threads: int = 2) -> Verified:
    """Counts, decodes every file to its end, and looks for files that are in two splits.

    Args:
        data: as its reader found it.
        published: how many images each split should have, where that is known.
        threads: how many files are decoded at once.
    """
    counts = {name: (len(split), len(set(split.labels))) for name, split in data.splits.items()}
    return Verified(counts, (*_counting(data, published or {}), *_broken(data, threads), *_repeated(data.splits)))


def _counting(data: DataSet, published: Mapping[str, int]) -> Iterable[str]:
    for name, split in data.splits.items():
        if name in published and len(split) != published[name]:
            yield f"{name}: {len(split):,} images, where the published split has {published[name]:,}"
        for label in sorted(set(range(len(data.classes))) - set(split.labels)):
            yield f"{name}: no image of class {data.classes[label]}"


def _broken(data: DataSet, threads: int) -> Iterable[str]:
    paths = sorted({path for split in data.splits.values() for path in split.paths})
    with ThreadPoolExecutor(threads) as pool:
        for problem in track(pool.map(_problem_of, paths), description="decoding", total=len(paths)):
            if problem:
                yield problem


def _problem_of(path: Path) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    try:
        decode(path.read_bytes(), OWN_IMAGES)
    except (ImageRejected, OSError) as error:
        return f"{path}: {error}"
    return None


def _repeated(splits: Mapping[str, Split]) -> Iterable[str]:
    """Files with the same bytes on both sides of a border, or under two classes; also one file that is listed twice."""
    places: dict[str, list[tuple[str, Path, int]]] = defaultdict(list)
    for name, split in splits.items():
        for path, label in zip(split.paths, split.labels, strict=True):
            if path.is_file():
                places[_digest(path)].append((name, path, label))
    for (first, path, label), *others in places.values():
        for name, other, other_label in others:
            if name != first:
                yield f"{other} ({name}) has the bytes of {path} ({first})"
            elif label != other_label:
                yield f"{other} has the bytes of {path}, and another class"
            elif other == path:
                yield f"{path} is listed twice in {name}"


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except DataError:
        return str(path)  # named already, as what cannot be read
