"""The questions, in the order in which they are answered, and the tables."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import uvloop

from benchmarks.serving.abuse import abuse
from benchmarks.serving.arrivals import arrivals, side_by_side
from benchmarks.serving.contenders import HOST, LONG_S, NPY, Contender, contenders_of, service
from benchmarks.serving.load import Sample, closed_loop
from benchmarks.serving.patience import Patience
from benchmarks.serving.saturation import BATCH, bare, saturation
from benchmarks.serving.tiny import SIZE, tiny_bundle
from benchmarks.subject import bundle_of, jpegs, photographs
from benchmarks.timing import console, machine, table
from rankone.model.bundle import Bundle
from rankone.model.engine import load_engine

ROUNDS: Final = 8
CEILING_S: Final = 2.0
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
        patience = Patience(1 / bare(engine, photographs(opened, 1), 8).per_s)
        capacity = saturation(engine, opened, threads, patience)
        with contenders_of(opened, threads) as contenders:
            own_part(contenders["rankone"], patience)
            arrivals(contenders, capacity, patience)
        if patience.side_by_side:
            with contenders_of(opened, threads, LONG_S) as contenders:
                side_by_side(contenders, capacity, patience)
        if not patience.is_long:
            abuse(opened, threads, capacity / 2, patience.open_s(capacity / 2))


def ceiling(bundle: Bundle) -> None:
    """What the server itself can do, with a network that costs next to nothing: requests of one image by form of answer."""
    found = table(
        f"a network of no cost, {SIZE} x {SIZE}: one image a request", "", "requests/s", "p99 ms", "CPU ms a request"
    )
    images, samples, cpu_s = _small_jpegs(), {form: Sample() for form in _FORMS}, dict.fromkeys(_FORMS, 0.0)
    with service(bundle, 1) as contender:
        for _ in range(ROUNDS):
            for form, (accept, query) in _FORMS.items():
                before = contender.cpu_s()
                samples[form] += _closed(
                    contender, [contender.single(image, accept, query) for image in images], 32, CEILING_S
                )
                cpu_s[form] += contender.cpu_s() - before
    for form, sample in samples.items():
        cpu_ms = 1e3 * cpu_s[form] / len(sample.seconds)
        found.add_row(form, f"{sample.per_s:.0f}", f"{1e3 * sample.percentile(99):.1f}", f"{cpu_ms:.2f}")
    console.print(found)


def own_part(contender: Contender, patience: Patience) -> None:
    """A single request on an idle service: how much of its time is neither decoding nor engine."""
    image, own, total = jpegs(1)[0], list[float](), list[float]()
    with contender.awake(), httpx.Client(trust_env=False) as client:
        for _ in range(30 if patience.is_long else 100):
            response = client.post(
                f"http://{HOST}:{contender.port}/embed",
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


def _closed(contender: Contender, requests: Sequence[bytes], concurrency: int, duration_s: float) -> Sample:
    return uvloop.run(closed_loop(HOST, contender.port, requests, concurrency, duration_s))


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
