"""Draws docs/images/concept-*.png, one picture an idea, from images and filters: `python -m benchmarks.concepts`.

The filters are learned ones, which are downloaded (see `benchmarks.quality.sources`); nothing is drawn by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from skimage import data
from torch import Tensor

from benchmarks.quality.crops import NUM_CROPS, embeddings, features
from benchmarks.quality.short import LENGTHS, POOLINGS, recall_at_1
from benchmarks.quality.sources import learned_filters
from rankone.model.backbone import build_backbone
from rankone.model.normalization import RankOneUpdate
from rankone.model.pooling import signed_sqrt
from rankone.model.preprocessing import Preprocessing, to_array
from rankone.model.projection import TensorSketch
from rankone.model.reduction import Floats, shorten
from rankone.model.statistics import gram
from rankone.training.report.canvas import Theme, figure, rendered
from rankone.training.report.findings import singular_values
from rankone.training.short import Examples, learn

FOLDER: Final = Path("docs/images")
SIZE: Final = 448
DIM: Final = 10_000
NUM_LEARNED: Final = 150
_SHOWN: Final = 60
"""Singular values, and channels of a matrix, that a picture has room for."""


def main() -> None:
    """Draws all pictures; the first time it downloads and embeds 1,600 crops, which takes minutes."""
    for name, draw in PICTURES.items():
        picture = rendered(f"concept-{name}", "", draw)
        (FOLDER / f"concept-{name}.png").write_bytes(picture.light)
        print(FOLDER / f"concept-{name}.png")


def photograph() -> Image.Image:
    """A cup of coffee on a wooden table."""
    square = np.asarray(data.coffee())[:, 100:500]  # type: ignore[no-untyped-call]
    return Image.fromarray(square).resize((SIZE, SIZE), Image.Resampling.LANCZOS)


@cache
@torch.inference_mode()
def local_features() -> Tensor:
    """Of the photograph: (1, 784, 512)."""
    backbone = build_backbone("vgg16", learned_filters().as_posix()).eval()
    found: Tensor = backbone(torch.from_numpy(to_array(photograph(), Preprocessing(size=SIZE)))[None])
    return found


def way(_: Theme) -> Figure:
    """The photograph and what each step makes of it."""
    local, update, sketch = local_features(), RankOneUpdate(512), TensorSketch(512, DIM)
    before, after = gram(local), update(gram(local))
    embedding = torch.nn.functional.normalize(signed_sqrt(sketch(after)), dim=-1)[0]
    side = int(local.shape[1] ** 0.5)
    strongest = before[0].diagonal().argsort(descending=True)[:_SHOWN].sort().values
    parts: list[tuple[str, Any]] = [
        ("image\n448 x 448", photograph()),
        ("local features\n28 x 28 places, 512 channels", local[0].norm(dim=-1).reshape(side, side)),
        (f"Gram matrix\n512 x 512, {_SHOWN} shown", before[0][strongest][:, strongest].sqrt()),
        ("after RUN\nthe largest part is damped", after[0][strongest][:, strongest].clamp(min=0).sqrt()),
        (f"embedding\n{DIM:,} numbers of length 1", embedding.reshape(100, 100)),
    ]
    drawn = figure(2.0)
    for axes, (title, shown) in zip(drawn.subplots(1, len(parts)), parts, strict=True):
        limit = float(embedding.abs().quantile(0.99))
        is_signed = shown is parts[-1][1]
        axes.imshow(shown, **({"cmap": "RdBu", "vmin": -limit, "vmax": limit} if is_signed else {"cmap": "viridis"}))
        axes.set_title(title, fontsize=8)
        axes.set_axis_off()
    return drawn


def burstiness(theme: Theme) -> Figure:
    """How much of the squared length the largest numbers of a sketch hold, before and after the two steps against it."""
    sketch, update = TensorSketch(512, DIM), RankOneUpdate(512)
    plain, damped = sketch(gram(local_features()))[0], sketch(update(gram(local_features())))[0]
    curves = {
        "sketch alone": plain,
        "signed square root": signed_sqrt(plain),
        "RUN, then signed square root": signed_sqrt(damped),
    }
    drawn = figure(3.2, 6.4)
    axes = drawn.subplots()
    for (label, values), colour, style in zip(
        curves.items(), (theme.ink, theme.first, theme.second), (":", "--", "-"), strict=True
    ):
        squares = values.square().sort(descending=True).values
        share = 100 * squares.cumsum(0) / squares.sum()
        axes.plot(100 * np.arange(1, DIM + 1) / DIM, share, label=label, color=colour, linestyle=style)
    axes.set(xscale="log", xlabel="largest numbers, % of all 10,000", ylabel="% of the squared length", ylim=(0, 101))
    axes.set_xticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axes.set_title("A few numbers say almost everything, until they are damped")
    axes.legend()
    return drawn


def spectrum(theme: Theme) -> Figure:
    """Singular values before and after RUN."""
    update = RankOneUpdate(512)
    before, after = singular_values(local_features(), update)
    drawn = figure(3.2, 6.4)
    axes = drawn.subplots()
    places = np.arange(1, 13)
    axes.bar(places - 0.2, before[0][:12], 0.4, label="before", color=theme.faint)
    axes.bar(places + 0.2, after[0][:12], 0.4, label=f"after RUN (eta {update.eta})", color=theme.first)
    axes.set(xlabel="singular value of the local features", ylabel="size", xticks=places)
    axes.set_title("RUN shrinks the largest and leaves the others")
    axes.legend()
    return drawn


def sketching(theme: Theme) -> Figure:
    """Inner products of sketches against those of the matrices that they stand for."""
    local = torch.from_numpy(np.array(features()[:: 4 * NUM_CROPS]))
    matrices = torch.nn.functional.normalize(gram(local).flatten(1), dim=-1)
    drawn = figure(3.2, 7.2)
    pair = torch.triu_indices(len(local), len(local), offset=1)
    exact = (matrices @ matrices.T)[pair[0], pair[1]]
    for axes, dim in zip(drawn.subplots(1, 2, sharey=True), (1_000, DIM), strict=True):
        rows = torch.nn.functional.normalize(TensorSketch(512, dim)(gram(local)), dim=-1)
        axes.scatter(exact, (rows @ rows.T)[pair[0], pair[1]], s=2, color=theme.first, linewidths=0)
        axes.axline((0, 0), slope=1, color=theme.ink, linewidth=0.8)
        axes.set(xlabel="cosine of two Gram matrices (262,144 numbers)", title=f"sketch of {dim:,} numbers")
    drawn.axes[0].set_ylabel("cosine of their sketches")
    return drawn


def short(theme: Theme) -> Figure:
    """Recall@1 against bytes on 250 textures that the map has not seen, of one draw."""
    labels = np.repeat(np.arange(len(features()) // NUM_CROPS), NUM_CROPS)
    inside = np.isin(labels, np.random.default_rng(0).permutation(labels.max() + 1)[:NUM_LEARNED])
    drawn = figure(3.2, 6.4)
    axes = drawn.subplots()
    for name, colour in (("cbp-run", theme.first), ("sum", theme.second)):
        rows: Floats = embeddings(name, POOLINGS[name])
        places = np.unique(labels[inside], return_inverse=True)[1]
        learned = learn(Examples(rows[inside], np.arange(len(places)), places, "")).reduction
        lengths = [length for length in (8, 16, 32, *LENGTHS) if length <= learned.dim]
        found = [recall_at_1(shorten(learned(rows[~inside]), length), labels[~inside]) for length in lengths]
        axes.plot([4 * length for length in lengths], found, marker="o", color=colour, label=f"{name}, short")
        whole = recall_at_1(rows[~inside], labels[~inside])
        axes.plot(4 * rows.shape[1], whole, "s", color=colour, label=f"{name}, all {rows.shape[1]:,} numbers")
    axes.set(xscale="log", xlabel="bytes of a vector", ylabel="recall@1")
    axes.set_xticks([32, 128, 512, 2048, 40_000], ["32", "128", "512", "2,048", "40,000"])
    axes.set_title("A learned short vector finds more with less")
    axes.legend()
    return drawn


PICTURES: Final[dict[str, Callable[[Theme], Figure]]] = {
    "way": way,
    "burstiness": burstiness,
    "spectrum": spectrum,
    "sketch": sketching,
    "short": short,
}


if __name__ == "__main__":
    with torch.inference_mode():
        main()
