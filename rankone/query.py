"""`rankone embed`, `classify`, `add` and `search`: images to a running service and its answers to a file or the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import orjson
import tyro
from rich.console import Console
from rich.progress import track
from tyro.conf import Positional

from model.errors import RankoneError
from service.client import DEFAULT_URL, Client, ServiceError

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
_PER_REQUEST: Final = 16
_BYTES_PER_REQUEST: Final = 32_000_000

Answer = TypeVar("Answer")


class InputError(RankoneError, ValueError):
    """Paths that hold no image, or an output file of a kind that is not written."""


def embed(arguments: list[str]) -> None:
    """See `command`."""

    def command(paths: Positional[tuple[Path, ...]], out: Path | None = None, url: str = DEFAULT_URL) -> None:
        """Images to embeddings.

        Args:
            paths: images, or folders of images.
            out: a .npy file (one row an image, the paths in order on standard output) or a .json file; else JSON lines
                on standard output.
            url: where the service is.
        """
        _check_suffix(out, (".npy", ".json"))
        with Client(url) as client:
            images = find_images(paths)
            rows = list(_batched(images, client.embed, "embedding"))
        if out is not None and out.suffix == ".npy":
            np.save(out, np.concatenate(rows))
            print("\n".join(map(str, images)))
            return
        _write(out, images, "embedding", [row for batch in rows for row in batch])

    tyro.cli(command, prog="rankone embed", args=arguments)


def classify(arguments: list[str]) -> None:
    """See `command`."""

    def command(
        paths: Positional[tuple[Path, ...]], top_k: int = 5, out: Path | None = None, url: str = DEFAULT_URL
    ) -> None:
        """Images to class predictions.

        Args:
            paths: images, or folders of images.
            top_k: classes an image.
            out: a .json file; else JSON lines on standard output.
            url: where the service is.
        """
        _check_suffix(out, (".json",))
        with Client(url) as client:
            images = find_images(paths)
            answers = list(_batched(images, lambda part: client.classify(part, top_k), "classifying"))
        _write(out, images, "predictions", [list(map(asdict, row)) for batch in answers for row in batch])

    tyro.cli(command, prog="rankone classify", args=arguments)


def add(arguments: list[str]) -> None:
    """See `command`."""

    def command(paths: Positional[tuple[Path, ...]], index: str = "default", url: str = DEFAULT_URL) -> None:
        """Adds images to the index under their paths as ids; those that are there already are replaced.

        Args:
            paths: images, or folders of images.
            index: name of the index.
            url: where the service is.
        """
        with Client(url) as client:
            images = find_images(paths)
            for _ in _batched(
                images, lambda part: client.add(part, [str(path) for path in part], index=index), "adding"
            ):
                pass
            print(f"{len(images)} images added; the index holds {client.count(index)}")

    tyro.cli(command, prog="rankone add", args=arguments)


def search(arguments: list[str]) -> None:
    """See `command`."""

    def command(
        paths: Positional[tuple[Path, ...]],
        k: int = 10,
        index: str = "default",
        out: Path | None = None,
        url: str = DEFAULT_URL,
    ) -> None:
        """The nearest images in the index to each image.

        Args:
            paths: images, or folders of images.
            k: neighbours an image.
            index: name of the index.
            out: a .json file; else JSON lines on standard output.
            url: where the service is.
        """
        _check_suffix(out, (".json",))
        with Client(url) as client:
            images = find_images(paths)
            answers = list(_batched(images, lambda part: client.search(part, k, index), "searching"))
        _write(out, images, "neighbours", [list(map(asdict, row)) for batch in answers for row in batch])

    tyro.cli(command, prog="rankone search", args=arguments)


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The files among `paths`, and the JPEG, PNG and WebP files under the folders among them, in order.

    Raises:
        InputError: a path that is not there, or nothing found.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(entry for entry in path.rglob("*") if entry.suffix.lower() in _SUFFIXES and entry.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path} is not there")
    if not found:
        raise InputError("no images: give JPEG, PNG or WebP files, or folders that hold some")
    return found


def _batched(images: Sequence[Path], ask: Callable[[Sequence[Path]], Answer], doing: str) -> Iterator[Answer]:
    """What `ask` says to the images, a few at a time; an image that is refused is named by its path."""
    groups = list(group_by_size(images))
    for group in track(groups, description=doing, console=Console(stderr=True)):
        try:
            yield ask(group)
        except ServiceError as error:
            named = "; ".join(f"{group[fault['index']]}: {fault['reason']}" for fault in error.errors)
            raise ServiceError(error.status, named or error.detail, error.errors) from error


def group_by_size(images: Sequence[Path]) -> Iterator[list[Path]]:
    """The images in order, as many a group as one request may hold by the service's defaults, in number and in bytes."""
    group: list[Path] = []
    num_bytes = 0
    for image in images:
        size = image.stat().st_size
        if group and (len(group) == _PER_REQUEST or num_bytes + size > _BYTES_PER_REQUEST):
            yield group
            group, num_bytes = [], 0
        group.append(image)
        num_bytes += size
    yield group


def _write(out: Path | None, images: Sequence[Path], name: str, values: Sequence[Any]) -> None:
    """One object an image: a JSON list in the file `out`, else JSON lines on standard output."""
    records = [{"path": str(path), name: value} for path, value in zip(images, values, strict=True)]
    options = orjson.OPT_SERIALIZE_NUMPY
    if out is not None:
        out.write_bytes(orjson.dumps(records, option=options | orjson.OPT_INDENT_2))
        return
    for record in records:
        sys.stdout.buffer.write(orjson.dumps(record, option=options) + b"\n")
    sys.stdout.flush()


def _check_suffix(out: Path | None, accepted: Sequence[str]) -> None:
    if out is not None and out.suffix not in accepted:
        raise InputError(f"{out}: answers are written to {' or '.join(accepted)} files")
