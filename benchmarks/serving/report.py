"""The questions, in the order in which they are answered, and the tables."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import httpx
import uvloop
from rich.table import Table

from benchmarks.serving.abuse import abuse
from benchmarks.serving.contenders import NPY, Contender, engine_images_per_s, has_litserve, litserve, service
from benchmarks.serving.load import Sample, closed_loop, open_loop
from benchmarks.serving.patience import Patience
from benchmarks.serving.tiny import SIZE, tiny_bundle
from benchmarks.subject import bundle_of, jpegs, photographs
from benchmarks.timing import console, machine
from model.bundle import Bundle

ROUNDS: Final = 3
BATCH: Final = 16
CEILING_S: Final = 8.0
_JSON: Final = "Accept: application/json"
_FORMS: Final = {
    "npy": (NPY, ""),
    "float16 npy": (NPY, "?dtype=float16"),
    "base64": (_JSON, "?encoding=base64"),
    "JSON": (_JSON, ""),
}


def main(bundle: Path | None = None) -> None:
    """Prints every table."""
    threads = len(os.sched_getaffinity(0))
    console.print(f"[bold]serving[/bold]: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        ceiling(tiny_bundle(Path(folder, "tiny")))
    with bundle_of(bundle) as opened:
        size = opened.manifest.preprocessing.size
        console.print(f"{opened.manifest.name}: {opened.manifest.backbone.name} at {size} x {size}, {threads} threads")
        patience = Patience(1 / engine_images_per_s(opened, threads, photographs(opened, 1), CEILING_S))
        capacity = saturation(opened, threads, patience)
        own_part(opened, threads, patience)
        arrivals(opened, threads, capacity, patience)
        if not patience.is_long:
            abuse(opened, threads, capacity / 2, patience.open_s(capacity / 2))


def ceiling(bundle: Bundle) -> None:
    """What the server itself can do, with a network that costs next to nothing: requests of one image by form of answer."""
    table = _table(
        f"a network of no cost, {SIZE} x {SIZE}: one image a request", "", "requests/s", "p99 ms", "CPU ms a request"
    )
    with service(bundle, 1) as contender:
        for form, (accept, query) in _FORMS.items():
            requests = [contender.single(image, accept, query) for image in _small_jpegs()]
            _closed(contender, requests, 32, 1.0)
            before = contender.cpu_s()
            sample = _closed(contender, requests, 32, CEILING_S)
            cpu_ms = 1e3 * (contender.cpu_s() - before) / len(sample.seconds)
            table.add_row(form, f"{sample.per_s:.0f}", f"{1e3 * sample.percentile(99):.1f}", f"{cpu_ms:.2f}")
    console.print(table)


def saturation(bundle: Bundle, threads: int, patience: Patience) -> float:
    """Images/s when there is always more to do, in rounds with the bare engine; returns the service's on single images."""
    images, files = photographs(bundle, BATCH), jpegs(BATCH)
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for batch in (1, 4):
            bare = engine_images_per_s(bundle, threads, images[:batch], patience.closed_s)
            found.setdefault(f"engine alone, batches of {batch}", []).append(bare)
        for contend in _contenders(bundle, threads):
            with contend as contender:
                singles = _closed(contender, [contender.single(file) for file in files], BATCH, patience.closed_s)
                found.setdefault(f"{contender.name}, one image a request", []).append(singles.per_s)
                if contender.name == "rankone":
                    whole = _closed(contender, [contender.batch(files)], 2, patience.closed_s)
                    found.setdefault(f"rankone, {BATCH} images a request", []).append(BATCH * whole.per_s)
    rival = max(statistics.median(values) for name, values in found.items() if name.startswith("engine"))
    table = _table("saturated", "", "images/s", "least - most", "of the bare engine's best")
    for name, values in found.items():
        median = statistics.median(values)
        table.add_row(name, f"{median:.2f}", f"{min(values):.2f} - {max(values):.2f}", f"{100 * median / rival:.1f} %")
    console.print(table)
    return statistics.median(found["rankone, one image a request"])


def own_part(bundle: Bundle, threads: int, patience: Patience) -> None:
    """A single request on an idle service: how much of its time is neither decoding nor engine."""
    image, own, total = jpegs(1)[0], list[float](), list[float]()
    with service(bundle, threads) as contender, httpx.Client(trust_env=False) as client:
        for _ in range(30 if patience.is_long else 100):
            response = client.post(
                f"http://127.0.0.1:{contender.port}/embed",
                content=image,
                headers={"content-type": "image/jpeg", "accept": "application/x-npy"},
            )
            parts = _server_timing(response.headers["server-timing"])
            own.append(parts["total"] - parts["decode"] - parts["engine"])
            total.append(parts["total"])
    quantiles = statistics.quantiles(own, n=100)
    console.print(
        f"a single request: {statistics.median(total):.1f} ms in the service, of which its own part "
        f"{quantiles[49]:.2f} ms (p95 {quantiles[94]:.2f}, p99 {quantiles[98]:.2f})"
    )


def arrivals(bundle: Bundle, threads: int, capacity: float, patience: Patience) -> None:
    """Poisson arrivals of single images at parts of the service's capacity; latency from when each was to be sent."""
    table = _table(
        f"Poisson arrivals; 100 % is {capacity:.1f} images/s",
        "load", "", f"in {patience.in_time_s:.2g} s, /s", "p50 ms", "p95", "p99", "p99.9", "refused", "CPU ms a request",
    )  # fmt: skip
    rows: dict[float, list[tuple[str, ...]]] = {load: [] for load in patience.loads}
    for contend in _contenders(bundle, threads):
        with contend as contender:
            requests = [contender.single(file, timeout_s=patience.in_time_s) for file in jpegs(BATCH)]
            for load in patience.loads:
                before = contender.cpu_s()
                sample = _open(contender, requests, load * capacity, patience)
                cpu_ms = 1e3 * (contender.cpu_s() - before) / max(len(sample.seconds), 1)
                rows[load].append((f"{load:.0%}", contender.name, *_cells(sample, patience), f"{cpu_ms:.0f}"))
    for of_load in rows.values():
        for row in of_load:
            table.add_row(*row)
    console.print(table)


def _cells(sample: Sample, patience: Patience) -> Iterator[str]:
    yield f"{sum(seconds <= patience.in_time_s for seconds in sample.seconds) / sample.arriving_s:.3g}"
    for percent in (50, 95, 99, 99.9):
        is_known = len(sample.seconds) * round(1000 - 10 * percent) >= 1000  # or it would be the slowest alone
        yield f"{1e3 * sample.percentile(percent):.0f}" if is_known else "-"
    yield str(sum(count for status, count in sample.statuses.items() if status != 200))


def _contenders(bundle: Bundle, threads: int) -> Iterator[AbstractContextManager[Contender]]:
    """The service and, where it is installed, LitServe: one at a time, as one that waits may burn the processor."""
    yield service(bundle, threads)
    if has_litserve():
        yield litserve(bundle, threads, 4)
    else:
        console.print("LitServe is not installed (`make peers`), so it is not measured")


def _closed(contender: Contender, requests: Sequence[bytes], concurrency: int, duration_s: float) -> Sample:
    return uvloop.run(closed_loop("127.0.0.1", contender.port, requests, concurrency, duration_s))


def _open(contender: Contender, requests: Sequence[bytes], rate: float, patience: Patience) -> Sample:
    return uvloop.run(open_loop("127.0.0.1", contender.port, requests, rate, patience.open_s(rate)))


def _small_jpegs() -> list[bytes]:
    import io

    from PIL import Image

    small = []
    for jpeg in jpegs(BATCH):
        file = io.BytesIO()
        Image.open(io.BytesIO(jpeg)).resize((SIZE, SIZE)).save(file, "jpeg")
        small.append(file.getvalue())
    return small


def _server_timing(header: str) -> dict[str, float]:
    parts = (part.strip().partition(";dur=") for part in header.split(","))
    return {name: float(milliseconds) for name, _, milliseconds in parts}


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table
