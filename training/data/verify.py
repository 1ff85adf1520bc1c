"""`rankone data verify`: checks every file of a data set, and names every problem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from rankone.model.folders import name_of
from rankone.training.data.dataset import DataError, DataSet, sha256_of
from rankone.training.data.folder import empty_classes, left_out
from rankone.training.data.picture import picture
from rankone.training.data.registry import READERS, Options, is_folder, read

ClassOfSplit = tuple[str, str]
"""A split and a class."""


@dataclass(frozen=True)
class Verified:
    """Number of images and classes by split, a sentence for every problem, and what the folders hold beside images."""

    counts: Mapping[str, tuple[int, int]]
    problems: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def verify_at(name: str, path: Path, options: Options, threads: int = 2) -> Verified:
    """Verifies the data set in `path` against the published numbers of layout `name`; raises DataError as its reader does."""
    data = read(name, path, options)
    if not is_folder(name):
        return verify(data, READERS[name].expected(options), threads)
    found = verify(data, threads=threads, reasons=empty_classes(path, data))
    return Verified(found.counts, (*found.problems, *left_out(path)), data.left_out)


def verify(
    data: DataSet,
    published: Mapping[str, int] | None = None,
    threads: int = 2,
    reasons: Mapping[ClassOfSplit, str] | None = None,
) -> Verified:
    """Counts images and classes, decodes every file to its end as training does, and looks for duplicates.

    `published` holds the expected number of `classes`, and of images by split; `threads` files are decoded at once;
    `reasons` say why a class is empty.
    """
    if threads < 1:
        raise DataError(f"at least one thread is needed, not {threads}")
    counts = {name: (len(split), len(set(split.labels))) for name, split in data.splits.items()}
    places: dict[Path, list[ClassOfSplit]] = defaultdict(list)
    for name, split in data.splits.items():
        for path, label in zip(split.paths, split.labels, strict=True):
            places[path].append((name, data.classes[label]))
    checked = _check_files(data, sorted(places), threads)
    broken = (problem for _, problem in checked.values() if problem)
    digests = {path: digest for path, (digest, _) in checked.items() if digest}
    return Verified(counts, (*_counting(data, published, reasons or {}), *broken, *_duplicates(places, digests)))


def _counting(data: DataSet, published: Mapping[str, int] | None, reasons: Mapping[ClassOfSplit, str]) -> Iterable[str]:
    if published and len(data.classes) != published["classes"]:
        yield f"{len(data.classes):,} classes, where the published set has {published['classes']:,}"
    for name, split in data.splits.items():
        if published and len(split) != published[name]:
            yield f"{name}: {len(split):,} images, where the published split has {published[name]:,}"
        for label in sorted(set(range(len(data.classes))) - set(split.labels)):
            why = reasons.get((name, data.classes[label]))
            yield f"{name}: no image of class {data.classes[label]}{f' ({why})' if why else ''}"


def _check_files(data: DataSet, paths: list[Path], threads: int) -> dict[Path, tuple[str | None, str | None]]:
    """By file, the digest of its bytes if it can be read, and its fault if it has one."""

    def check(path: Path) -> tuple[str | None, str | None]:
        try:
            if not path.is_file():
                return None, f"{name_of(path)}: missing"
            digest = sha256_of(path)
        except OSError as error:  # a name that no file can have
            return None, f"{name_of(path)}: {error.strerror}"
        except DataError as error:
            return None, str(error)
        try:
            picture(path, data.train.banner)
        except DataError as error:
            return digest, str(error)
        return digest, None

    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(check, paths)
        bar = Console(stderr=True)
        return dict(zip(paths, track(found, "decoding", len(paths), console=bar, transient=True), strict=True))


def _duplicates(places: Mapping[Path, list[ClassOfSplit]], digests: Mapping[Path, str]) -> Iterable[str]:
    """Files that are listed twice, and files with the same bytes in two splits or under two classes."""
    named = {path: "; ".join(f"{split}, {label}" for split, label in uses) for path, uses in places.items()}
    for path, uses in places.items():
        if len(uses) > 1:
            yield f"{name_of(path)} is listed {len(uses)} times: {named[path]}"
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, digest in digests.items():
        groups[digest].append(path)
    for paths in groups.values():
        if len(paths) > 1 and len({place for path in paths for place in places[path]}) > 1:
            yield f"the same bytes: {' and '.join(f'{name_of(path)} ({named[path]})' for path in paths)}"
