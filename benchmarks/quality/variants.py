"""`rankone bench variants`: what makes `cbp-run` retrieve as well as `cbp-ts`, without giving up classification.

Every variant is measured on the local features of learned filters, without fine-tuning, on three data sets: a linear
classifier solved until it converges, recall@1 of whole embeddings and of 128 numbers learned from other classes, as in
`rankone compare`. Three seeds of hashes and start vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from benchmarks.markdown import markdown, spread
from benchmarks.paper.measure import kept
from benchmarks.paper.plan import fewer
from benchmarks.quality.pictures import objects, textures
from benchmarks.quality.sources import HOME, learned_filters
from benchmarks.timing import console, machine
from rankone.model.catalogue import build
from rankone.model.composition import compose
from rankone.model.network import Network
from rankone.model.normalization.rank_one import rank_one_update
from rankone.model.pooling import Pooling, l2_normalize
from rankone.training.compare.features import Images, features, network_of
from rankone.training.compare.measure import scores_of
from rankone.training.data import DataSet
from rankone.training.data.photos import load_photos
from rankone.training.processes import Resources
from rankone.training.recipe import Recipe
from rankone.training.run import replace_file

SEEDS: Final = (0, 1, 2)
SIZE: Final = 128
NUM_IMAGES: Final = 20
"""Of a class in each split, at most."""
NUM_STARTS: Final = 8
_D: Final = 512


class Beside(Pooling):
    """Two embeddings side by side; `share` of the squared length is the first one's."""

    def __init__(self, first: Pooling, second: Pooling, share: float) -> None:
        out_dim = first.out_dim + second.out_dim
        super().__init__(nn.Identity(), nn.Identity(), nn.Identity(), out_dim, elementwise=False)
        self.first, self.second, self.share = first, second, share

    def pool(self, features_BND: Tensor) -> Tensor:
        parts = (self.share**0.5 * self.first(features_BND), (1 - self.share) ** 0.5 * self.second(features_BND))
        return torch.cat(parts, dim=1)


class Power(Pooling):
    """`pooling` with another power than 1/2 in its element-wise step."""

    def __init__(self, pooling: Pooling, power: float) -> None:
        super().__init__(pooling.statistic, pooling.normalization, pooling.projection, pooling.out_dim)
        self.power = power

    def finish(self, pooled_Bd: Tensor) -> Tensor:
        return l2_normalize(pooled_Bd.sign() * pooled_Bd.abs() ** self.power)


class MeanOfStarts(nn.Module):
    """The mean of RUN over several start vectors, (B, D, D) -> (B, D, D)."""

    def __init__(self, iterations: int, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.starts, self.iterations = torch.randn(NUM_STARTS, _D, generator=draws), iterations

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        updated = [rank_one_update(matrix_BDD, start, 0.6, self.iterations) for start in self.starts]
        return torch.stack(updated).mean(dim=0)


class ToTheSecond(nn.Module):
    """The largest singular value of the features made as large as the second, by an exact decomposition of `G`."""

    def forward(self, matrix_BDD: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix_BDD.double())
        lowered = values.clone()
        lowered[:, -1] = values[:, -2]
        equal: Tensor = vectors * lowered[:, None] @ vectors.transpose(1, 2)
        return equal.to(matrix_BDD.dtype)


def replaced(normalization: nn.Module, seed: int) -> Pooling:
    """`cbp-run` with another normalization."""
    whole = build("cbp-run", seed=seed)
    return Pooling(whole.statistic, normalization, whole.projection, whole.out_dim)


def composed(statistic: str, seed: int) -> Pooling:
    """`cbp-run` with another statistic."""
    return compose(statistic, "rank-one-update", "tensor-sketch").with_options(seed=seed).build(_D)


VARIANTS: Final[Mapping[str, Callable[[int], Pooling]]] = {
    "sum": lambda _: build("sum"),
    "cbp-ts": lambda seed: build("cbp-ts", seed=seed),
    "cbp-run (eta 0.6)": lambda seed: build("cbp-run", seed=seed),
    "eta 0.3": lambda seed: build("cbp-run-mild", seed=seed),
    "eta 0.15": lambda seed: build("cbp-run", eta=0.15, seed=seed),
    "eta so that the first two are equal": lambda seed: replaced(ToTheSecond(), seed),
    "one iteration": lambda seed: build("cbp-run", iterations=1, seed=seed),
    "one iteration, mean of 8 starts": lambda seed: replaced(MeanOfStarts(1, seed), seed),
    "two iterations, mean of 8 starts": lambda seed: replaced(MeanOfStarts(2, seed), seed),
    "moment + RUN": lambda seed: composed("moment", seed),
    "covariance + RUN": lambda seed: composed("covariance", seed),
    "power 0.3": lambda seed: Power(build("cbp-run", seed=seed), 0.3),
    "power 0.7": lambda seed: Power(build("cbp-run", seed=seed), 0.7),
    "sum beside cbp-run, 1 : 1": lambda seed: Beside(build("sum"), build("cbp-run", seed=seed), 0.5),
    "sum beside cbp-run, 1 : 3": lambda seed: Beside(build("sum"), build("cbp-run", seed=seed), 0.25),
    "sum beside cbp-ts, 1 : 1": lambda seed: Beside(build("sum"), build("cbp-ts", seed=seed), 0.5),
}
DATA: Final[Mapping[str, Callable[[], DataSet]]] = {
    "textures": textures,
    "objects": objects,
    "photos": lambda: fewer(load_photos(), NUM_IMAGES),
}


class Measured(BaseModel):
    """One variant on one data set at one seed."""

    accuracy: float
    full: float
    short: float | None


def main() -> None:
    """Measures what is missing in data/quality/variants, prints the table, and writes it there."""
    console.print(f"[bold]variants of cbp-run[/bold]: {machine()}")
    folder = HOME / "variants"
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: dict(rows(name, load(), folder)) for name, load in DATA.items()}
    text = "\n".join(f"**{name}**\n\n{table(several)}" for name, several in found.items())
    replace_file(folder / "variants.md", text.encode())
    console.print(text)


def rows(name: str, data: DataSet, folder: Path) -> Iterator[tuple[str, list[Measured]]]:
    """Each variant with its figures, one a seed."""
    recipe = Recipe(weights=learned_filters().as_posix(), size=SIZE, validation=0.0)
    resources, images = Resources(), Images(data)
    network = network_of(recipe, data, resources)
    local = features(network, recipe, images, folder, resources)

    def measure(title: str, seed: int, path: Path) -> Measured:
        whole = Network(network.backbone, VARIANTS[title](seed), None).eval()
        scores = scores_of(whole, local, images, path.with_suffix(".f32"), seed, resources)
        short = None if scores.short is None else scores.short.mean
        return Measured(accuracy=scores.accuracy.mean, full=scores.full.mean, short=short)

    for title in VARIANTS:
        paths = {seed: folder / f"{name}, {title.replace(':', 'to')}, seed {seed}.json" for seed in SEEDS}
        seeds = SEEDS if title != "sum" else SEEDS[:1]
        yield title, [kept(paths[seed], Measured, partial(measure, title, seed, paths[seed])) for seed in seeds]


def table(found: Mapping[str, list[Measured]]) -> str:
    """Markdown: mean, lowest and highest over the seeds."""
    lines = []
    for title, several in found.items():
        figures = zip(*((row.accuracy, row.full, row.short or 0) for row in several), strict=True)
        lines.append([title, *(spread(values, dash=" – ") for values in figures)])
    return markdown(["variant", "accuracy", "recall@1, whole", "recall@1, 128 numbers"], lines)
