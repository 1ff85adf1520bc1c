"""`rankone bench scale`: what 10^6 to 10^9 images cost, by arithmetic from figures that were measured.

Prints the tables of docs/results/scale.md. `INPUTS` has every measured figure, and the page and words that it stands in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.markdown import markdown

COUNTS: Final = (10**6, 10**7, 10**8, 10**9)
DAY_S: Final = 86_400
HOUR_S: Final = 3_600
MACHINE_BYTES: Final = 256 * 10**9
"""Memory of a machine: an assumption."""
QUERIES_PER_S: Final = 100
DOES_NOT_FIT: Final = "–"
GPU_BYTES: Final = 80 * 10**9
"""Memory of an H100."""


@dataclass(frozen=True)
class Input:
    """A measured figure.

    Args:
        value: in the unit that `what` names.
        what: it is.
        page: in docs/results.
        words: of that page, with the figure in them.
    """

    value: float
    what: str
    page: str
    words: str


INPUTS: Final = {
    "gpu": Input(1720, "images/s, H100, float16, batches of 32", "gpu.md", "| `onnx` | float16 | no | **1,720** |"),
    "service": Input(451, "images/s from JPEG, H100 and 16 cores", "gpu.md", "the service answered 451 images/s"),
    "cpu": Input(1.35, "images/s, two cores", "serving.md", "| rankone, 1 image | 1.35 |"),
    "large": Input(0.064, "s of a core to decode 12 megapixels", "jpeg.md", "| reduced, to a half | 46 | 64 |"),
    "jpeg": Input(1.1e6, "bytes of a JPEG of 12 megapixels", "jpeg.md", "smooth (0.7 to 1.1 MB)"),
    "full_file": Input(
        20_573, "bytes of an item on disk, 10,000 numbers", "quality.md", "| 380 bytes | 20,573 bytes |"
    ),
    "full_memory": Input(40_000, "bytes of an item in memory, exact", "retrieval.md", "| 40,000 bytes | 1,260 bytes,"),
    "bit_memory": Input(1_260, "bytes of an item in memory, compact", "retrieval.md", "| 40,000 bytes | 1,260 bytes,"),
    "short_file": Input(380, "bytes of an item on disk, 128 numbers", "quality.md", "| 380 bytes | 20,573 bytes |"),
    "short_memory": Input(660, "bytes of an item in memory, 128 numbers", "retrieval.md", "| 0.66 GB | 0.66 GB ("),
    "full_query": Input(48.9e-3 / 20_000, "s an item, exact", "retrieval.md", "| 48.9: 0.89 x |"),
    "bit_query": Input(9.5e-3, "s a query, compact, 50,000 items", "retrieval.md", "compact alone | – | 9.5 ms,"),
    "bit_scan": Input(
        1.2e-3 / 50_000, "s an item, the part of it that grows", "retrieval.md", "first bits take 1.2 ms"
    ),
    "short_query": Input(
        20.6e-3 / 10**6, "s an item, exact, 128 numbers", "retrieval.md", "| a single query | 68 ms | 20.6 ms,"
    ),
    "gpu_query": Input(1.86e-3 / 64 / 200_000, "s an item, H100, 64 at once", "gpu.md", "| 0.66 ms | 1.86 ms |"),
    "bit_adds": Input(4_863, "items/s, compact", "retrieval.md", "| – | 4,863 ("),
    "bit_start": Input(2.9 / 50_000, "s an item, compact", "retrieval.md", "| 3.2 to 4.8 s | 2.5 to 2.9 s |"),
    "short_start": Input(9.7 / 10**6, "s an item, 128 numbers", "retrieval.md", "in the page cache | 10.5 s | 9.7 s |"),
    "graph_disk": Input(
        24_025 - 20_627,
        "bytes an item that PostgreSQL takes beyond a file, compact, 10,000 numbers",
        "postgres.md",
        "| bytes an item on disk, `compact`, 10,000 numbers | 20,627 | 24,025 |",
    ),
    "graph_adds": Input(
        1_219, "items/s, PostgreSQL, compact, 10,000 numbers", "postgres.md", "numbers | 8,478 | **1,219** |"
    ),
    "graph_query": Input(
        19.5e-3, "s a query, PostgreSQL, compact, 10,000 numbers, 20,000 items", "postgres.md", "| 9.7 | **19.5** |"
    ),
    "short_graph_disk": Input(
        1_115, "bytes of an item, PostgreSQL, compact, 128 numbers", "postgres.md", "128 numbers | 412 | 1,115 |"
    ),
    "short_graph_adds": Input(
        1_843, "items/s, PostgreSQL, compact, 128 numbers", "postgres.md", "128 numbers | 36,733 | **1,843** |"
    ),
    "short_graph_query": Input(
        1.6e-3, "s a query, PostgreSQL, compact, 128 numbers, 20,000 items", "postgres.md", "one query | 7.5 | 1.6 |"
    ),
    "published_disk": Input(21_356, "bytes of an item in Lance, 10,000 numbers", "lance.md", "20,627 | 21,356, 1,281"),
    "published_adds": Input(312, "items/s published, 10,000 numbers", "lance.md", "10,000 numbers | 1,739 | **312** |"),
    "short_published_disk": Input(
        373, "bytes of an item in Lance, 128 numbers", "lance.md", "128 numbers | 412 | 373, 42"
    ),
    "short_published_adds": Input(604, "items/s published, 128 numbers", "lance.md", "128 numbers | 4,512 | **604** |"),
}

ITEM: Final = {name: given.value for name, given in INPUTS.items()}

Cell = Callable[[int], str]
"""What a table says of so many images."""


def main() -> None:
    """Prints every table."""
    print("\n".join(tables().values()))


def tables() -> dict[str, str]:
    """Every table in Markdown, by name."""
    return {table.__name__: table() for table in (embed, room, files, postgres, published, machines)}


def embed() -> str:
    """GPUs, cores and bytes to embed, the first time or with another model."""
    return by_count(
        {
            "one H100, for the network": lambda count: duration(count / ITEM["gpu"]),
            "one H100 with 16 cores, from JPEGs of 640 x 480": lambda count: duration(count / ITEM["service"]),
            "two cores, no GPU": lambda count: duration(count / ITEM["cpu"]),
            "cores to decode JPEGs of 12 megapixels in a day": lambda count: whole(count * ITEM["large"] / DAY_S),
            "bytes of those, 1.1 MB each": bytes_of("jpeg"),
            "Gbit/s to read them in a day": lambda count: significant(8 * count * ITEM["jpeg"] / DAY_S / 1e9),
        }
    )


def room() -> str:
    """Bytes on disk and in memory."""
    return by_count(
        {
            "10,000 numbers, disk (20,573 B an item)": bytes_of("full_file"),
            "10,000 numbers, memory of `exact` (40,000 B)": bytes_of("full_memory"),
            "10,000 numbers, memory of `compact` (1,260 B)": bytes_of("bit_memory"),
            "10,000 numbers, PostgreSQL's graph (3,398 B)": bytes_of("graph_disk"),
            "128 numbers, disk (380 B)": bytes_of("short_file"),
            "128 numbers, PostgreSQL with its graph (1,115 B)": bytes_of("short_graph_disk"),
            "128 numbers, memory (660 B)": bytes_of("short_memory"),
        }
    )


def compact_s(count: int) -> float:
    """A compact query: the Hamming distances grow with the index, what follows looks at no more than before."""
    return ITEM["bit_query"] + ITEM["bit_scan"] * (count - 50_000)


def files() -> str:
    """One service with its index in files, on two cores or with a GPU."""

    def on_gpu(count: int) -> str:
        return significant(1 / (count * ITEM["gpu_query"])) if count * 20_000 <= GPU_BYTES else DOES_NOT_FIT

    return by_count(
        {
            "`exact`, 10,000: queries/s": fits("full_memory", lambda n: significant(1 / (n * ITEM["full_query"]))),
            "`compact`, 10,000: queries/s": fits("bit_memory", lambda n: significant(1 / compact_s(n))),
            "`exact`, 128: queries/s": fits("short_memory", lambda n: significant(1 / (n * ITEM["short_query"]))),
            "`exact`, 10,000, on an H100, 64 at once: queries/s": on_gpu,
            "filling `compact`, 10,000": fits("bit_memory", lambda n: duration(n / ITEM["bit_adds"])),
            "start of `compact`, 10,000": fits("bit_memory", lambda n: duration(n * ITEM["bit_start"])),
            "start of `exact`, 128": fits("short_memory", lambda n: duration(n * ITEM["short_start"])),
        }
    )


def postgres() -> str:
    """One database, `compact`. A graph of n items is built and searched in steps that grow with log n."""

    def filling(kind: str) -> Cell:
        return fits(f"{kind}_disk", lambda n: duration(n / ITEM[f"{kind}_adds"] * math.log(n, 20_000)))

    def asking(kind: str) -> Cell:
        return fits(f"{kind}_disk", lambda n: significant(1 / (ITEM[f"{kind}_query"] * math.log(n, 20_000))))

    return by_count(
        {
            "10,000 numbers: filling": filling("graph"),
            "10,000 numbers: queries/s, one at a time": asking("graph"),
            "128 numbers: filling": filling("short_graph"),
            "128 numbers: queries/s, one at a time": asking("short_graph"),
        }
    )


def published() -> str:
    """Published versions in Lance."""
    return by_count(
        {
            "10,000 numbers, disk (21,356 B an item)": bytes_of("published_disk"),
            "10,000 numbers: publishing": lambda count: duration(count / ITEM["published_adds"]),
            "128 numbers, disk (373 B)": bytes_of("short_published_disk"),
            "128 numbers: publishing": lambda count: duration(count / ITEM["short_published_adds"]),
        }
    )


def machines() -> str:
    """Cores that search for `QUERIES_PER_S` queries. Two cores were measured."""
    return by_count(
        {
            "`exact`, 128": lambda count: whole(2 * QUERIES_PER_S * count * ITEM["short_query"]),
            "`compact`, 10,000": lambda count: whole(2 * QUERIES_PER_S * compact_s(count)),
            "`exact`, 10,000": lambda count: whole(2 * QUERIES_PER_S * count * ITEM["full_query"]),
        }
    )


def by_count(rows: Mapping[str, Cell]) -> str:
    """A table with a column for each number of images."""
    head = ["", *(f"10^{round(math.log10(count))}" for count in COUNTS)]
    return markdown(head, ([name, *map(cell, COUNTS)] for name, cell in rows.items()))


def bytes_of(name: str) -> Cell:
    """So many bytes an item."""
    return lambda count: size(count * ITEM[name])


def fits(name: str, cell: Cell) -> Cell:
    """`cell`, as long as the items fit into a machine."""
    return lambda count: cell(count) if count * ITEM[name] <= MACHINE_BYTES else DOES_NOT_FIT


def significant(value: float) -> str:
    """Two digits that count, three from 100 on."""
    digits = 2 if value < 100 else 3
    exponent = math.floor(math.log10(value)) if value else 0
    rounded = round(value, digits - 1 - exponent)
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    for unit, length in (("years", 365 * DAY_S), ("days", 3 * DAY_S), ("h", HOUR_S), ("min", 60)):
        if seconds >= length:
            return f"{significant(seconds / (DAY_S if unit == 'days' else length))} {unit}"
    return f"{significant(seconds)} s"


def size(num_bytes: float) -> str:
    """In decimal units."""
    for unit, length in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if num_bytes >= length:
            return f"{significant(num_bytes / length)} {unit}"
    return f"{significant(num_bytes / 1e6)} MB"


def whole(value: float) -> str:
    """Rounded up."""
    return f"{math.ceil(value):,}"
