"""Images/s on a GPU by engine, precision and batch, against the limits of the card.

The limits are measured in the same run: a large matrix product in each precision, and copies on the card and to it. Also
measured: the memory held, and the head's share of the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Final, get_args

import torch
from torch import Tensor

from benchmarks.bundles import bundle_of, photographs
from benchmarks.resources import count_flops
from benchmarks.timing import Timing, compare, console, machine, table
from rankone.model.bundle import Bundle
from rankone.model.engine import EngineError, gpu_memory_bytes, load_engine
from rankone.model.engine.base import EngineName, Images, Precision
from rankone.model.engine.torch_engine import lower, use_no_tf32
from rankone.model.errors import RankoneError
from rankone.model.network import Network, open_network

BATCHES: Final = (32, 8, 1)
"""Largest first, like the warm-up of the service."""
ROUNDS: Final = 10
TYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class NoGPU(RankoneError, RuntimeError):
    """There is no GPU."""


@dataclass(frozen=True)
class Ceilings:
    """The limits of a device: FLOP/s of a product by precision, bytes/s of a copy on it and to it."""

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


def main(bundle: Path | None = None) -> None:
    """Prints the ceilings, a row for every engine, precision and batch, and the head's share.

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
        with torch.inference_mode():
            flops = count_flops(partial(open_network(opened), torch.from_numpy(images[:1])))
        print_rows(list(rows_of(opened, images)), flops, images[0].nbytes, ceilings)
        for precision in get_args(Precision):
            share = head_share(open_network(opened).to("cuda"), torch.from_numpy(images).to("cuda"), precision)
            console.print(f"head beside a backbone in {precision}, batch {len(images)}: {share:.1%} of the time")


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
    """Every engine in every precision, without and with CUDA graphs; prints why the others cannot be loaded."""
    threads = len(os.sched_getaffinity(0))
    for name, precision, graphs in product(get_args(EngineName), get_args(Precision), (False, True)):
        before = gpu_memory_bytes()
        try:
            engine = load_engine(bundle, name, "cuda", threads, precision, cuda_graphs=graphs)
        except EngineError as error:
            console.print(f"{name} {precision}: {error}")
            continue
        for batch in BATCHES:
            (timing,) = compare({name: partial(engine.run, images[:batch])}, ROUNDS).values()  # with copies to and from
            yield Row(f"{name}, graphs" if graphs else name, precision, batch, timing, gpu_memory_bytes() - before)
        engine.close()
        torch.cuda.empty_cache()


def print_ceilings(ceilings: Ceilings) -> None:
    """Prints a line each."""
    for name, speed in ceilings.product.items():
        console.print(f"matrix product, {name}: {speed / 1e12:.1f} TFLOP/s")
    console.print(f"copy on the card: {ceilings.copy / 1e9:.0f} GB/s; to it, pinned: {ceilings.upload / 1e9:.1f} GB/s")


def print_rows(rows: Sequence[Row], flops: int, num_bytes: int, ceilings: Ceilings) -> None:
    """Prints images/s and the shares of the ceilings, by the FLOPs and bytes of one image."""
    found = table(
        f"{flops / 1e9:.1f} GFLOP and {num_bytes / 1e6:.1f} MB an image",
        *("engine", "precision", "batch", "images/s", "quartiles, ms", "of the product", "of the upload", "held, MB"),
    )
    for row in rows:
        images_per_s = row.batch / row.timing.median
        found.add_row(
            row.engine,
            row.precision,
            str(row.batch),
            f"{images_per_s:.1f}",
            f"{1e3 * row.timing.low:.2f} - {1e3 * row.timing.high:.2f}",
            f"{images_per_s * flops / ceilings.product[row.precision]:.1%}",
            f"{images_per_s * num_bytes / ceilings.upload:.1%}",
            f"{row.held_bytes / 1e6:.0f}",
        )
    console.print(found)


@torch.inference_mode()
def head_share(network: Network, images: Tensor, precision: Precision, rounds: int = ROUNDS) -> float:
    """The head's part of the network's time, in [0, 1], behind a backbone in `precision`."""
    lower(network, TYPES[precision])
    lowered = images.to(TYPES[precision], memory_format=torch.channels_last)
    calls = {
        "backbone": partial(network.backbone, lowered),
        "head": partial(network.pooling, network.backbone(lowered)),
    }
    timings = compare(calls, rounds, device=images.device.type)
    head = timings["head"].median
    return head / (head + timings["backbone"].median)
