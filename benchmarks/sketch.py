"""Sketches of an image's local features, by way of their Gram matrix, against a sketch of every location.

Target: Tensor Sketch at least 30 times faster than with two FFTs a location; N = 784 locations, D = 512 channels,
d = 10,000 bins, float32, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.resources import peak_bytes
from benchmarks.timing import Goal, console, machine, megabytes, print_comparison
from rankone.model.projection import RandomMaclaurin, TensorSketch
from rankone.model.statistics import gram

LOCATIONS, CHANNELS, BINS, ROUNDS = 784, 512, 10_000, 15
RIVAL, MACLAURIN = "FFT per location", "Maclaurin per location"


def fft_per_location(features_BND: Tensor, sketch: TensorSketch) -> Tensor:
    """Algorithm 2 of Gao et al.: two count sketches and a convolution for each location, then the mean."""
    spectra = []
    for hashes, signs in ((sketch.h1, sketch.s1), (sketch.h2, sketch.s2)):
        empty = features_BND.new_zeros(*features_BND.shape[:2], sketch.out_dim)
        spectra.append(torch.fft.rfft(empty.index_add(2, hashes, features_BND * signs)))
    convolved: Tensor = torch.fft.irfft(spectra[0] * spectra[1], n=sketch.out_dim)
    return convolved.mean(dim=1)


def gather_table(sketch: TensorSketch) -> Tensor:
    """The entries of the matrix, row by row, in each bin, (longest list, d); shorter lists are filled with D * D."""
    bins = sketch.bins.flatten()
    counts = torch.bincount(bins, minlength=sketch.out_dim)
    order = bins.argsort(stable=True)
    place = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    table_Ld = torch.full((int(counts.max()), sketch.out_dim), len(order))
    table_Ld[place, bins[order]] = order
    return table_Ld


def gather_sketch(matrix_BDD: Tensor, sketch: TensorSketch, table_Ld: Tensor) -> Tensor:
    """Tensor Sketch by a gather and a sum, (B, D, D) -> (B, d); entry D * D is a zero."""
    signed_Bn: Tensor = F.pad((matrix_BDD * sketch.signs).flatten(1), (0, 1))
    entries_BLd = signed_Bn.index_select(1, table_Ld.flatten()).view(-1, *table_Ld.shape)
    return entries_BLd.sum(dim=1)


def maclaurin_per_location(features_BND: Tensor, sketch: RandomMaclaurin) -> Tensor:
    """`mean_n (W1 f_n) * (W2 f_n) / sqrt(d)`, (B, N, D) -> (B, d)."""
    products_BNd: Tensor = (features_BND @ sketch.w1.T) * (features_BND @ sketch.w2.T)
    return products_BNd.mean(dim=1) * float(sketch.out_dim**-0.5)


def contenders(
    locations: int = LOCATIONS, channels: int = CHANNELS, bins: int = BINS
) -> dict[str, Callable[[], Tensor]]:
    """Every form by name, as a call that returns the sketch of the same image, (1, bins).

    Tensor Sketch is timed with the Gram matrix and without it, as RUN has computed it already.
    """
    features = torch.randn(1, locations, channels, generator=torch.Generator().manual_seed(0)).relu()
    sketch, maclaurin, matrix = TensorSketch(channels, bins), RandomMaclaurin(channels, bins), gram(features)
    table = gather_table(sketch)
    return {
        RIVAL: lambda: fft_per_location(features, sketch),
        "Gram, then scatter": lambda: sketch(gram(features)),
        "scatter, Gram at hand": lambda: sketch(matrix),
        "gather, Gram at hand": lambda: gather_sketch(matrix, sketch, table),
        MACLAURIN: lambda: maclaurin_per_location(features, maclaurin),
        "Gram, then Maclaurin": lambda: maclaurin(gram(features)),
    }


@torch.inference_mode()
def main() -> None:
    """Prints times and memory for one image."""
    console.print(f"[bold]sketch[/bold]: {machine()}; {LOCATIONS} x {CHANNELS} to {BINS:,}, float32")
    calls = contenders()
    memory = megabytes({name: peak_bytes(call) for name, call in calls.items()})
    goals = (Goal(name, RIVAL, 30) for name in ("Gram, then scatter", "scatter, Gram at hand"))
    print_comparison(f"one image, {ROUNDS} rounds", calls, RIVAL, ROUNDS, *goals, more={"peak MB": memory})
