"""`rankone demo`: the whole way, on real photographs: images -> training -> bundle -> service -> answers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from rich.progress import Progress, track

from rankone.cli import command, show
from rankone.client import Client, Neighbour, ServiceError
from rankone.index.backup import file_of
from rankone.index.mapmaking import make_map
from rankone.model.bundle import Bundle, open_bundle
from rankone.model.errors import RankoneError
from rankone.model.folders import images_in
from rankone.training.recipe import Recipe, load_recipe

DATA: Final = Path("data")
RUNS: Final = Path("runs/demo")
_PER_REQUEST: Final = 14
_START_S: Final = 60
_GRACE_S: Final = 20
_NUM_SHOWN: Final = 4

Answer = TypeVar("Answer")


class DemoError(RankoneError, RuntimeError):
    """The demo cannot go on; the message says what to do."""


@command
def demo(recipe: str = "demo", weights: str | None = None, port: int = 8000, exit: bool = False) -> None:  # noqa: A002
    """Trains on real photographs, exports, serves and searches; then stays up until Ctrl-C.

    A second run finds what the first one made, and goes straight to the service.

    Args:
        recipe: `demo`, `default` (448 x 448) or a YAML file.
        weights: of the backbone, where they are not to be the recipe's: `imagenet`, `random` or a file.
        port: of the service, on 127.0.0.1.
        exit: end after the tour.
    """
    chosen = load_recipe(recipe)
    if weights is not None:
        chosen = chosen.model_copy(update={"weights": weights})
    home = RUNS / f"{Path(recipe).stem}-{Path(chosen.weights).stem}"
    bundle = prepare(home, chosen)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the service would outlive us
    with served(bundle, home, port) as client:
        tour(client)
        draw_map(bundle, home)
        if not exit:
            stay(port)


def prepare(home: Path, recipe: Recipe) -> Bundle:
    """The bundle in `home`, trained, measured and exported first where it is not there yet; verified in any case."""
    path = home / "bundle"
    if not path.exists():
        make(recipe, DATA, home / "run", path)
    started = time.perf_counter()
    bundle = open_bundle(path)
    made_by = {"color": recipe.color, **bundle.manifest.recipe}  # which bundles made before colour management lack
    if made_by != recipe.model_dump(mode="json"):
        raise DemoError(
            f"{home} was made by another recipe of the same name; remove it, or name the recipe differently"
        )
    top1 = bundle.manifest.metrics.get("top1", float("nan"))
    seconds = time.perf_counter() - started
    show.step("bundle", f"{path}: every checksum verified in {seconds:.1f} s; test accuracy {top1:.3f}")
    return bundle


def make(recipe: Recipe, root: Path, run: Path, path: Path) -> None:
    """Trains by `recipe` on the photographs in `root`, measures, and exports the run as the bundle `path`."""
    from rankone.training import pipeline
    from rankone.training.data import load_photos
    from rankone.training.processes import choose_device

    data = load_photos(root)
    show.step("photographs", f"{len(data.train)} to train on, {len(data.test)} to test, {len(data.classes)} classes")
    show.step("training", "phase 1: the classifier on fixed embeddings; phase 2: all layers")
    device, reason = choose_device("auto")
    show.step("device", f"{device} ({reason})")
    show.training(pipeline.train(data, recipe, run, device=device), run)
    show.step("evaluation", "test photographs, none of their pixels seen in training")
    show.report(pipeline.evaluate(run, data, device=device), run)
    show.step("export", "ONNX and TorchScript, each held against the network in float64")
    show.bundle(pipeline.export(run, data, path))
    show.doubts(pipeline.read_report(run))


@contextmanager
def served(bundle: Bundle, home: Path, port: int) -> Iterator[Client]:
    """The bundle behind `rankone serve`, a process of its own, while the block runs; its log in `home`/service.log.

    Raises:
        DemoError: it ended or was not ready within a minute; the message holds its last words.
    """
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise DemoError(f"something listens on port {port} already; end it, or choose another (--port)")
    log = home / "service.log"
    flags = ["--bundle", str(bundle.path), "--data", str(indexes(bundle, home)), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "rankone", "serve", *flags], stdout=out, stderr=out)  # noqa: S603
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            _wait_until_ready(client, process, log)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def tour(client: Client) -> None:
    """Embeds, classifies and indexes the test photographs, and searches with new ones, over HTTP."""
    info = client.info()
    show.step("service", f"{info['engine']} on {info['provider']}, {info['threads']} threads, {client.url}")
    gallery, queries = images_in(DATA / "photos" / "test"), images_in(DATA / "photos" / "new")
    embeddings, seconds = _ask(gallery, lambda part: list(client.embed(part)), "embedding")
    show.step("embed", f"{len(gallery)} photographs, {1e3 * seconds:.0f} ms each, {len(embeddings[0]):,} numbers each")
    predictions, seconds = _ask(gallery, lambda part: client.classify(part, top_k=1), "classifying")
    right = [best.label == path.parent.name for path, (best,) in zip(gallery, predictions, strict=True)]
    show.step("classify", f"accuracy {sum(right) / len(right):.3f}, {1e3 * seconds:.0f} ms each")
    if client.count() == len(gallery):
        show.step("index", f"{len(gallery)} photographs on disk already")
    else:
        _, seconds = _ask(gallery, partial(_add, client), "indexing")
        show.step("index", f"{client.count()} photographs on disk, {1e3 * seconds:.0f} ms each")
    found, seconds = _ask(queries, lambda part: client.search(part, k=3), "searching")
    hits = [
        neighbours[0].id.startswith(f"{path.parent.name}/") for path, neighbours in zip(queries, found, strict=True)
    ]
    show.step(
        "search", f"{len(queries)} new photographs, recall@1 {sum(hits) / len(hits):.3f}, {1e3 * seconds:.0f} ms each"
    )
    _show_neighbours(queries, found)


def draw_map(bundle: Bundle, home: Path) -> None:
    """Makes the map of the index, which the page shows."""
    made = make_map(file_of(indexes(bundle, home), "default"), lambda _: None)
    show.step("map", f"{len(made.ids)} photographs by the two principal components of their embeddings")


def indexes(bundle: Bundle, home: Path) -> Path:
    """The folder of the service's indexes, one for each bundle."""
    return home / f"index-{bundle.fingerprint[:8]}"


def stay(port: int) -> None:
    """Says what to try and, last, where the page is; returns at Ctrl-C."""
    image = next(iter(images_in(DATA / "photos" / "new")))
    show.step("up", "Ctrl-C ends it. Try, in another terminal:")
    show.console.print(f"  curl -F images=@{image} 'http://127.0.0.1:{port}/search?k=3'", soft_wrap=True)
    show.step(
        "page", f"open http://127.0.0.1:{port}/ in a browser, and drop photographs of {DATA / 'photos' / 'new'} there"
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        show.console.print()


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with Progress(transient=True) as bar:
        bar.add_task("starting the service", total=None)
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.wait_until_ready(timeout_s=0.2)
            except ServiceError:
                continue
            return
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise DemoError(f"the service did not start: {words[-1] if words else 'it said nothing'} (all of it in {log})")


def _ask(
    paths: Sequence[Path], call: Callable[[Sequence[Path]], Sequence[Answer]], doing: str
) -> tuple[list[Answer], float]:
    """The answers for all paths, a few paths a request, and the seconds an image."""
    started, answers = time.perf_counter(), list[Answer]()
    for start in track(range(0, len(paths), _PER_REQUEST), description=doing, transient=True):
        answers += call(paths[start : start + _PER_REQUEST])
    return answers, (time.perf_counter() - started) / len(paths)


def _add(client: Client, paths: Sequence[Path]) -> list[str]:
    """Adds photographs, each with its class as the label."""
    ids, metadata = [_id_of(path) for path in paths], [{"label": path.parent.name} for path in paths]
    return client.add(paths, ids, metadata)


def _show_neighbours(queries: Sequence[Path], found: Sequence[Sequence[Neighbour]]) -> None:
    every = max(1, len(queries) // _NUM_SHOWN)
    for path, neighbours in list(zip(queries, found, strict=True))[::every]:
        listed = ", ".join(f"{neighbour.id} {neighbour.score:.3f}" for neighbour in neighbours)
        show.console.print(f"  {_id_of(path)} -> {listed}")


def _id_of(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
