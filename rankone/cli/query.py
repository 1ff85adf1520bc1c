"""`rankone embed`, `classify`, `add` and `search`: any number of images to a running service, answers as they come; `update`.

They end with status 0 when every image was answered, 1 when some could not be used and were passed over, and 2 when nothing
came of it: then there is no output file.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from tyro.conf import Positional, arg

from rankone.cli import command
from rankone.cli.additions import new_items, read_metadata, refusal
from rankone.cli.errors import say
from rankone.cli.images import HERE, Ask, At, ImageFile, Sent, Service, send
from rankone.cli.job import JobOptions
from rankone.cli.job import embed as job_embed
from rankone.cli.output import InputError, writing
from rankone.client import Answer, AsyncClient, Client, OnRejection, SearchOptions
from rankone.model.folders import name_of
from rankone.service.job.sources import id_of

Paths = Positional[tuple[Path, ...]]
_NO_JOB: Final = JobOptions()


@command
def embed(
    paths: Positional[tuple[str, ...]] = (),
    dim: int | None = None,
    out: Path | None = None,
    service: At = HERE,
    job: Annotated[JobOptions, arg(name="")] = _NO_JOB,
) -> None:
    """Images to embeddings: by a running service or, with --bundle, without one.

    Args:
        paths: images, or folders of images; with --bundle also addresses of object stores such as s3://bucket/photos.
        dim: numbers of a short embedding; the full one if not given.
        out: a .npy file (one row an image, its path on standard output), or .json, .jsonl or .parquet; else JSON
            lines on standard output. With --bundle, a folder.
        service: to ask.
        job: without a service.
    """
    if job.bundle is not None:
        job_embed(paths, out, dim, job)
        return
    if job != _NO_JOB:
        raise InputError("--cluster, --list and --shard are for a job without a service: name its --bundle")
    files = [Path(path) for path in paths]
    _write(out, "embedding", files, service, lambda client, images, reject: client.embed_iter(images, reject, dim=dim))


@command
def classify(paths: Paths, top_k: int = 5, out: Path | None = None, service: At = HERE) -> None:
    """Images to class predictions.

    Args:
        paths: images, or folders of images.
        top_k: classes an image.
        out: a .json, .jsonl or .parquet file; else JSON lines on standard output.
        service: to ask.
    """
    _write(
        out, "predictions", paths, service, lambda client, images, reject: client.classify_iter(images, top_k, reject)
    )


@command
def add(
    paths: Paths,
    index: str = "default",
    metadata: Path | None = None,
    label_from_folder: bool = False,
    service: At = HERE,
) -> None:
    """Adds images to an index under their paths as ids; those that are there already are replaced.

    Their metadata is kept, but for the fields that are given here.

    Args:
        paths: images, or folders of images.
        index: name of the index.
        metadata: a .jsonl file with lines such as {"path": "photos/1.jpg", "metadata": {"year": 2020}}.
        label_from_folder: the name of each image's folder becomes the field `label` of its metadata.
        service: to ask.
    """
    given = {} if metadata is None else read_metadata(metadata)
    unused = set(given)

    def written(path: str, _value: Any) -> None:
        unused.discard(id_of(Path(path)))

    with Client(service.url, key=service.key) as lookups:

        def ask(
            client: AsyncClient, images: Sequence[ImageFile], reject: OnRejection
        ) -> AsyncIterator[Answer[Any, Any]]:
            items = new_items(images, lookups, index, given, label_from_folder=label_from_folder)
            return client.add_iter(items, index, reject)

        sent = send(paths, service, ask, written, refusal())
        print(f"{sent.num_images - sent.num_rejected} images added; the index holds {lookups.count(index)}")
    if unused:
        first = name_of(min(unused))
        say(f"{len(unused):,} lines of {metadata} are of no image added, such as {first}")
    _end(sent)


@command
def search(
    paths: Paths,
    k: int = 10,
    filter: str | None = None,  # noqa: A002 - the name in the contract
    min_score: float | None = None,
    group_by: str | None = None,
    index: str = "default",
    out: Path | None = None,
    service: At = HERE,
) -> None:
    """The nearest items of an index to each image.

    Args:
        paths: images, or folders of images: as many queries as there are.
        k: neighbours an image.
        filter: only items whose metadata matches, as JSON: '{"year": {"$gte": 2020}}'.
        min_score: only items with a cosine of at least this.
        group_by: only the best item for each value of this field of the metadata.
        index: name of the index.
        out: a .json, .jsonl or .parquet file; else JSON lines on standard output.
        service: to ask.
    """
    options = _options(k, filter, min_score, group_by)
    _write(
        out,
        "neighbours",
        paths,
        service,
        lambda client, images, reject: client.search_iter(images, index, reject, **options),
    )


@command
def update(item: Positional[str], metadata: str, index: str = "default", service: At = HERE) -> None:
    """Changes the metadata of an item and leaves its image; prints the metadata that it then has.

    Args:
        item: its id.
        metadata: the fields to set, as JSON, where null removes one: '{"year": 2020, "draft": null}'.
        index: name of the index.
        service: to ask.
    """
    fields = _parsed("--metadata", metadata, '{"year": 2020, "draft": null}')
    if not isinstance(fields, dict):
        raise InputError(f"--metadata {metadata}: not an object, as in --metadata '{{\"year\": 2020}}'")
    with Client(service.url, key=service.key) as client:
        print(orjson.dumps(client.update(item, fields, index)).decode())


def _options(k: int, condition: str | None, min_score: float | None, group_by: str | None) -> SearchOptions:
    options: SearchOptions = {"k": k}
    if condition is not None:
        options["filter"] = _parsed("--filter", condition, '{"year": {"$gte": 2020}}')
    if min_score is not None:
        options["min_score"] = min_score
    if group_by is not None:
        options["group_by"] = group_by
    return options


def _parsed(flag: str, text: str, example: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{flag} {text}: not JSON ({error}); write it as in {flag} '{example}'") from None


def _write(out: Path | None, column: str, paths: Sequence[Path], service: Service, ask: Ask) -> None:
    with writing(out, column) as write:
        sent = send(paths, service, ask, write)
    _end(sent)


def _end(sent: Sent) -> None:
    if sent.num_rejected:
        sys.exit(f"rankone: {sent.num_rejected} of {sent.num_images} images could not be used: they are named above")
