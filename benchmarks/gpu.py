"""What a GPU makes of the network: images/s by engine, precision and batch, held against what the card can do at most.

The ceilings are measured in the same run: a large matrix product in each precision, and copies on the card and to it. Shown as
well: the head's share of the time, the memory that is held, and what is left of the speed when JPEG files are decoded on the
CPU beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Final, cast, get_args

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.flops import count_flops
from benchmarks.subject import bundle_of, jpegs, photographs
from benchmarks.timing import Timing, compare, console, machine
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine, EngineError, load_engine
from rankone.model.engine.base import EngineName, Images, Precision
from rankone.model.engine.torch_engine import lower, use_no_tf32
from rankone.model.errors import RankoneError
from rankone.model.network import Network, open_network
from rankone.model.preprocessing import Preprocessing, preprocess

BATCHES: Final = (32, 8, 1)
"""Largest first, as a service warms up."""
ROUNDS: Final = 10
DECODED: Final = 512
TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class NoGPU(RankoneError, RuntimeError):
    """There is no GPU to measure."""


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at most: FLOP/s of a product by precision, bytes/s of a copy on it and to it."""

    product: dict[str, float]
    copy: float
    upload: float


@dataclass(frozen=True)
class Row:
    """One engine at one batch size."""

    engine: str
    precision: Precision
    batch: int
    timing: Timing
    held_bytes: int

    @property
    def images_per_s(self) -> float:
        """By the median."""
        return self.batch / self.timing.median


def main(bundle: Path | None = None) -> None:
    """Prints the ceilings, a row for every engine, precision and batch, the head's share, and the speed end to end.

    Raises:
        NoGPU: torch finds none.
    """
    if not torch.cuda.is_available():
        raise NoGPU("the benchmark gpu measures a GPU, and torch finds none (nvidia-smi tells more)")
    use_no_tf32()
    console.print(f"[bold]gpu[/bold]: {machine('cuda')}")
    ceilings = measure_ceilings("cuda")
    print_ceilings(ceilings)
    with bundle_of(bundle) as opened:
        images = photographs(opened, max(BATCHES))
        flops = count_flops(partial(_without_gradient, open_network(opened), torch.from_numpy(images[:1])))
        rows = list(rows_of(opened, images))
        print_rows(rows, flops, images[0].nbytes, ceilings)
        _print_heads(opened, torch.from_numpy(images).to("cuda"))
        _print_end_to_end(opened, max(rows, key=lambda row: row.images_per_s))


def measure_ceilings(device: str, side: int = 8192, num_bytes: int = 1 << 30) -> Ceilings:
    """The medians of a product of square matrices of `side` in each precision, and of copies of `num_bytes`."""
    matrices = {name: torch.ones(side, side, dtype=dtype, device=device) for name, dtype in TYPES.items()}
    products = compare({name: partial(torch.mm, x, x) for name, x in matrices.items()}, ROUNDS, device=device)
    here = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=device == "cuda")
    there, other = torch.zeros_like(here, device=device), torch.zeros_like(here, device=device)
    copies = compare({"on": partial(other.copy_, there), "to": partial(there.copy_, here)}, ROUNDS, device=device)
    return Ceilings(
        product={name: 2 * side**3 / timing.median for name, timing in products.items()},
        copy=2 * num_bytes / copies["on"].median,  # read and written
        upload=num_bytes / copies["to"].median,
    )


def rows_of(bundle: Bundle, images: Images) -> Iterator[Row]:
    """Every engine in every precision, as it is and with CUDA graphs; those that cannot be had say why."""
    threads = len(os.sched_getaffinity(0))
    for name, precision, graphs in product(get_args(EngineName), get_args(Precision), (False, True)):
        before = _held()
        try:
            engine = load_engine(bundle, name, "cuda", threads, precision, cuda_graphs=graphs)
        except EngineError as error:
            console.print(f"{name} {precision}: {error}")
            continue
        for batch in BATCHES:
            timing = measure(engine, images[:batch])
            yield Row(f"{name}, graphs" if graphs else name, precision, batch, timing, _held() - before)
        engine.close()
        torch.cuda.empty_cache()


def measure(engine: Engine, images: Images, rounds: int = ROUNDS) -> Timing:
    """The engine on one batch, copies to the card and back included, by the host's clock."""
    return compare({engine.name: partial(engine.run, images)}, rounds)[engine.name]


def print_ceilings(ceilings: Ceilings) -> None:
    """A line each."""
    for name, speed in ceilings.product.items():
        console.print(f"matrix product, {name}: {speed / 1e12:.1f} TFLOP/s")
    console.print(f"copy on the card: {ceilings.copy / 1e9:.0f} GB/s; to it, pinned: {ceilings.upload / 1e9:.1f} GB/s")


def print_rows(rows: Sequence[Row], flops: int, num_bytes: int, ceilings: Ceilings) -> None:
    """Images/s, and how much of the ceilings that is, by the FLOPs and the bytes of one image."""
    table = Table(title=f"{flops / 1e9:.1f} GFLOP and {num_bytes / 1e6:.1f} MB an image", title_justify="left")
    for column in (
        "engine",
        "precision",
        "batch",
        "images/s",
        "quartiles, ms",
        "of the product",
        "of the upload",
        "held, MB",
    ):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row.engine,
            row.precision,
            str(row.batch),
            f"{row.images_per_s:.1f}",
            f"{1e3 * row.timing.low:.2f} - {1e3 * row.timing.high:.2f}",
            f"{row.images_per_s * flops / ceilings.product[row.precision]:.1%}",
            f"{row.images_per_s * num_bytes / ceilings.upload:.1%}",
            f"{row.held_bytes / 1e6:.0f}",
        )
    console.print(table)


@torch.inference_mode()
def head_share(network: Network, images: Tensor, precision: Precision, rounds: int = ROUNDS) -> float:
    """The part of the network's time, in [0, 1], that passes behind the backbone, which is in `precision`."""
    lower(network, TYPES[precision])
    lowered = images.to(TYPES[precision], memory_format=torch.channels_last)
    calls = {
        "backbone": partial(network.backbone, lowered),
        "head": partial(network.pooling, network.backbone(lowered)),
    }
    timings = compare(calls, rounds, device=images.device.type)
    head = timings["head"].median
    return head / (head + timings["backbone"].median)


def end_to_end(engine: Engine, files: Sequence[bytes], spec: Preprocessing, batch: int, workers: int) -> float:
    """Images/s from JPEG files to embeddings: `workers` threads decode, this one runs the engine on what is ready, in order."""
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        decoded = pool.map(partial(preprocess, spec=spec), files)
        for start in range(0, len(files), batch):
            engine.run(list(islice(decoded, min(batch, len(files) - start))))
    return len(files) / (time.perf_counter() - started)


def _print_heads(bundle: Bundle, images: Tensor) -> None:
    for precision in get_args(Precision):
        network = open_network(bundle).to(images.device)
        share = head_share(network, images, precision)
        console.print(f"head beside a backbone in {precision}, batch {len(images)}: {share:.1%} of the time")


def _print_end_to_end(bundle: Bundle, best: Row) -> None:
    workers = len(os.sched_getaffinity(0))
    name, _, graphs = best.engine.partition(", ")
    engine = load_engine(bundle, cast(EngineName, name), "cuda", workers, best.precision, cuda_graphs=bool(graphs))
    files = jpegs(DECODED)
    end_to_end(engine, files[: 2 * best.batch], bundle.manifest.preprocessing, best.batch, workers)
    speed = end_to_end(engine, files, bundle.manifest.preprocessing, best.batch, workers)
    console.print(
        f"end to end, {workers} threads decoding JPEG of 640 x 480: {speed:.1f} images/s, {speed / best.images_per_s:.0%} of "
        f"{best.engine} {best.precision} alone at batch {best.batch}"
    )
    engine.close()


def _without_gradient(network: Network, images: Tensor) -> None:
    with torch.inference_mode():
        network(images)


def _held() -> int:
    """Bytes of the card that anything holds, ONNX Runtime's and CUDA's own included: torch counts only what is its own."""
    free, total = torch.cuda.mem_get_info()
    return total - free
