"""`rankone bench serving`: HTTP ceiling, saturation, the service's own part of a request, and arrivals."""

from __future__ import annotations

import os
import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx

from benchmarks.bundles import TINY_SIZE, bundle_of, jpegs, photographs, tiny_bundle
from benchmarks.serving.arrivals import Schedule, arrivals
from benchmarks.serving.contenders import HOST, NPY, Contender, contenders_of, service
from benchmarks.serving.load import Sample, closed_loop, run
from benchmarks.serving.saturation import BATCH, bare, saturation
from benchmarks.timing import console, machine, table
from rankone.model.bundle import Bundle
from rankone.model.engine import load_engine

_ROUNDS: Final = 8
_ROUND_S: Final = 2.0
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
    with bundle_of(bundle) as opened, closing(load_engine(opened, "onnx", "cpu", threads)) as engine:
        size = opened.manifest.preprocessing.size
        console.print(f"{opened.manifest.name}: {opened.manifest.backbone.name} at {size} x {size}, {threads} threads")
        schedule = Schedule.of(1 / bare(engine, photographs(opened, 1), 8).per_s)
        capacity = saturation(engine, opened, threads, schedule)
        with contenders_of(opened, threads) as contenders:
            own_part(contenders["rankone"], schedule.turns)
            arrivals(contenders, capacity, schedule)


def ceiling(bundle: Bundle) -> None:
    """Prints requests/s by form of answer, for a network that costs next to nothing and 32 clients."""
    files = jpegs(BATCH, (TINY_SIZE, TINY_SIZE))
    samples = {form: Sample() for form in _FORMS}
    with service(bundle, 1) as contender:
        for _ in range(_ROUNDS):
            for form, (accept, query) in _FORMS.items():
                requests = [contender.single(file, accept, query) for file in files]
                samples[form] += run(closed_loop(HOST, contender.port, requests, 32, _ROUND_S), contender.cpu_s)
    title = f"a network of no cost, {TINY_SIZE} x {TINY_SIZE}: one image a request"
    found = table(title, "", "requests/s", "p99 ms", "CPU ms a request")
    for form, sample in samples.items():
        found.add_row(form, f"{sample.per_s:.0f}", f"{1e3 * sample.percentile(99):.1f}", f"{sample.cpu_ms:.2f}")
    console.print(found)


def own_part(contender: Contender, count: int) -> None:
    """Prints the time of a request on an idle service, and the part that is neither decoding nor engine."""
    image, own, total = jpegs(1)[0], list[float](), list[float]()
    headers = {"content-type": "image/jpeg", "accept": "application/x-npy"}
    with contender.awake(), httpx.Client(trust_env=False) as client:
        for _ in range(count):
            response = client.post(f"http://{HOST}:{contender.port}/embed", content=image, headers=headers)
            parts = _server_timing(response.headers["server-timing"])
            own.append(parts["total"] - parts["decode"] - parts["engine"])
            total.append(parts["total"])
    quantiles = statistics.quantiles(own, n=100)
    console.print(
        f"a single request: {statistics.median(total):.1f} ms in the service, its own part "
        f"{quantiles[49]:.2f} ms (p95 {quantiles[94]:.2f}, p99 {quantiles[98]:.2f})"
    )


def _server_timing(header: str) -> dict[str, float]:
    """Milliseconds by part of the request."""
    parts = (part.strip().partition(";dur=") for part in header.split(","))
    return {name: float(milliseconds) for name, _, milliseconds in parts}
