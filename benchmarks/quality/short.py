"""`rankone bench short`: what short embeddings keep, lose and save, by pooling and length, with learned filters.

Quality: 400 textures, four crops each. Maps are learned on 150 of them and measured on the other 250: two crops of each
are queries, two are the gallery, by cosine. Three draws of the 150.
Cost: 20,000 items of 128 numbers against 20,000 of 10,000, searched through the index in turn, and the bytes of their rows.

Targets: `cbp-run` at 64 to 128 numbers at least 0.10 above its own 10,000 and not under `sum`'s plain 512; search at least
30 times faster; memory at most 1/75.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.gallery import QUERIES, K, filled, noisy
from benchmarks.markdown import markdown, spread
from benchmarks.quality.crops import NUM_CROPS, embeddings
from benchmarks.quality.sources import HOME
from benchmarks.timing import Goal, console, machine, print_comparison
from rankone.index import Vectors
from rankone.model.catalogue import composition
from rankone.model.composition import Composition, compose
from rankone.model.reduction import Floats, Ints, shorten
from rankone.training.short import Examples, learn

SEEDS: Final = (0, 1, 2)
LENGTHS: Final = (64, 128, 256, 512)
NUM_LEARNED: Final = 150
POOLINGS: Final[Mapping[str, Composition]] = {
    "sum": composition("sum"),
    "cbp-ts": composition("cbp-ts", dim=10_000),
    "cbp-run": composition("cbp-run"),
    "Newton-Schulz + TS": compose(normalization="newton-schulz", projection="tensor-sketch"),
    "square root + TS": composition("monet-2"),
}
ROWS: Final = 20_000
ROUNDS: Final = 7
_SHORT: Final = 128
_METHODS: Final = ("PCA", "within-class")


@dataclass(frozen=True)
class Recall:
    """Recall@1 of one pooling at one seed: in full, and by method and length."""

    full: float
    short: Mapping[tuple[str, int], float]


def main() -> None:
    """Prints the tables, which are also written to data/quality/short.md."""
    console.print(f"[bold]short embeddings[/bold]: {machine()}")
    found = {name: [recall_of(embedded(name), seed) for seed in SEEDS] for name in POOLINGS}
    text = table(found)
    (HOME / "short.md").write_text(text, encoding="utf-8")
    console.print(text)
    print_targets(found)
    cost(embedded("cbp-run"))


def embedded(name: str) -> Floats:
    """The embeddings of all crops."""
    return embeddings(name.lower().replace(" + ", "-").replace(" ", "-"), POOLINGS[name])


def recall_of(rows: Floats, seed: int) -> Recall:
    """Recall@1 on the 250 classes that one draw leaves."""
    labels = np.arange(len(rows)) // NUM_CROPS
    drawn = np.random.default_rng(seed).permutation(len(rows) // NUM_CROPS)[:NUM_LEARNED]
    inside = np.isin(labels, drawn)
    places = np.unique(labels[inside], return_inverse=True)[1]  # whose parity divides them evenly
    views = np.arange(len(places))
    examples = (Examples(rows[inside], places, None, ""), Examples(rows[inside], views, places, ""))
    maps = {method: learn(one).reduction for method, one in zip(_METHODS, examples, strict=True)}
    outside, whose = rows[~inside], labels[~inside]
    short = {
        (method, length): recall_at_1(shorten(reduction(outside), length), whose)
        for method, reduction in maps.items()
        for length in LENGTHS
        if length <= reduction.dim
    }
    return Recall(recall_at_1(outside, whose), short)


def recall_at_1(rows: Floats, labels: Ints) -> float:
    """The share of the first two crops of every class whose nearest of all last two crops is of their class."""
    is_query = np.arange(len(rows)) % NUM_CROPS < NUM_CROPS // 2
    nearest = (rows[is_query] @ rows[~is_query].T).argmax(axis=1)
    return float((labels[~is_query][nearest] == labels[is_query]).mean())


def table(found: Mapping[str, list[Recall]]) -> str:
    """Markdown: recall@1 as mean, lowest and highest over the draws."""
    keys = [(method, length) for method in _METHODS for length in LENGTHS]
    lines = []
    for name, several in found.items():
        cells = [[one.full for one in several]]
        cells += [[one.short[key] for one in several if key in one.short] for key in keys]
        lines.append([name, *(spread(values, dash=" – ") for values in cells)])
    return markdown(["pooling", "full", *(f"{method}, {length}" for method, length in keys)], lines)


def print_targets(found: Mapping[str, list[Recall]]) -> None:
    """Prints for each length whether `cbp-run` gains 0.10 and is not under `sum` in full."""
    full, rival = (float(np.mean([one.full for one in found[name]])) for name in ("cbp-run", "sum"))
    for length in (64, _SHORT):
        short = float(np.mean([one.short["within-class", length] for one in found["cbp-run"]]))
        gain, outcome = short - full, "met" if short >= full + 0.10 and short >= rival else "missed"
        console.print(
            f"cbp-run at {length}: {short:.3f}, {gain:+.3f} on its 10,000 ({full:.3f}; +0.10 asked for), and plain sum has "
            f"{rival:.3f}: {outcome}"
        )


def cost(rows: Floats) -> None:
    """Prints the time of a search in two indexes of so many items, and the bytes that their rows take."""
    labels = np.arange(len(rows)) // NUM_CROPS
    reduction = learn(Examples(rows, np.arange(len(rows)), labels, "")).reduction
    vectors: dict[str, Vectors] = {"10,000 numbers": rows, f"{_SHORT} numbers": shorten(reduction(rows), _SHORT)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        indexes = {
            name: filled(path / f"{one.shape[1]}.sqlite", one, ROWS, "exact")[0] for name, one in vectors.items()
        }
        queries = {name: next(noisy(one, QUERIES, seed=1)) for name, one in vectors.items()}
        full, short = vectors
        for num in (1, QUERIES):
            calls = {name: partial(index.search, queries[name][:num], K) for name, index in indexes.items()}
            print_comparison(f"{ROWS:,} items, {num} queries", calls, full, ROUNDS, Goal(short, full, 30))
        for name, index in indexes.items():
            disk = index.path.stat().st_size
            console.print(f"{name}: {4 * vectors[name].shape[1]:,} bytes an item in memory, {disk / ROWS:,.0f} on disk")
            index.close()
    ratio = vectors[full].shape[1] / vectors[short].shape[1]
    console.print(f"memory: 1/{ratio:.0f} (at most 1/75: {'met' if ratio >= 75 else 'missed'})")
