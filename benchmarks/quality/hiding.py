"""`rankone bench hiding`: whether the strongest region of the evidence is what the score needs, with learned filters.

40 animals in front of surfaces, 224 x 224, so 14 x 14 locations; `cbp-run`, and a linear classifier on the embeddings of the
320 training images. For one test image a class: the 5 x 5 locations with the largest sum of shares are hidden by the mean
colour of the image, and then five random regions of that size. Scores are the logit of the predicted class, and the cosine
with the nearest training image. Target: the strongest region costs more than the five on average, for 90 % of the images.

Hazard: a location of VGG16 sees 196 x 196 pixels, so that here every region changes nearly every location.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor, nn

from benchmarks.quality.pictures import COUNT, objects
from benchmarks.quality.sources import learned_filters
from benchmarks.timing import console, machine
from rankone.model.catalogue import DEFAULT
from rankone.model.evidence import AdditivePooling, Doubles
from rankone.model.network import Network, build_network
from rankone.model.overlay import overlay, png, side_by_side
from rankone.model.preprocessing import Preprocessing, preprocess

SIZE: Final = 224
REGION: Final = 5
NUM_OTHERS: Final = 5
STRIDE: Final = 16
SIDE: Final = SIZE // STRIDE
_SPEC: Final = Preprocessing(size=SIZE)
_STEPS: Final = 400
_RATE: Final = 40.0
_PICTURE: Final = Path("docs/images/evidence.png")
_SHOWN: Final = ("duck", "camel", "fox")

Pixels = npt.NDArray[np.float32]


def main() -> None:
    """Prints the figures, and writes the picture of docs/evidence.md."""
    console.print(f"[bold]hiding[/bold]: {machine()}")
    data = objects()
    network = build_network(weights=learned_filters().as_posix(), size=SIZE).eval()
    gallery = torch.cat([embed(network, loaded(path)) for path in track(data.train.paths, description="embedding")])
    classifier = trained(gallery, torch.tensor(data.train.labels))
    split = split_of(network)
    draw(network, split, classifier, [data.test.paths[COUNT * data.classes.index(name)] for name in _SHOWN])
    measure(network, split, classifier, gallery, data.test.paths[::COUNT])


def measure(
    network: Network, split: AdditivePooling, classifier: nn.Linear, gallery: Tensor, paths: Sequence[Path]
) -> None:
    """Prints, for classes and for matches, how often and by how much more the strongest region costs."""
    rng, falls = np.random.default_rng(0), dict[str, list[tuple[float, float]]]()
    for path in track(paths, description="hiding"):
        image = loaded(path)
        outputs = outputs_of(network, image)
        embedding = outputs["embedding"][0]
        for name, target in {
            "class": classifier.weight.detach()[int(classifier(embedding).argmax())],
            "match": gallery[int((gallery @ embedding).argmax())],
        }.items():
            shares = split.located(outputs["features"][0].numpy()).shares(target.numpy())
            places = [strongest(shares.reshape(SIDE, SIDE))]
            places += [(int(row), int(column)) for row, column in rng.integers(0, SIDE - REGION + 1, (NUM_OTHERS, 2))]
            after = [float(target @ embed(network, hidden(image, place))[0]) for place in places]
            fall = float(target @ embedding) - np.array(after)
            falls.setdefault(name, []).append((fall[0], float(fall[1:].mean())))
    for name, pairs in falls.items():
        first, others = np.array(pairs).T
        console.print(
            f"{name}: the strongest region costs more in {(first > others).mean():.0%} of {len(pairs)} images (target: 90 %), "
            f"{first.mean():.4f} on average and another one {others.mean():.4f}"
        )


def draw(network: Network, split: AdditivePooling, classifier: nn.Linear, paths: Sequence[Path]) -> None:
    """Writes images under the evidence for their predicted class, side by side."""
    pictures = []
    for path in paths:
        outputs = outputs_of(network, loaded(path))
        weights = classifier.weight.detach()[int(classifier(outputs["embedding"][0]).argmax())].numpy()
        shares = split.located(outputs["features"][0].numpy()).shares(weights).reshape(SIDE, SIDE)
        image = Image.open(path).convert("RGB")
        pictures += [one.resize((200, 200)) for one in (image, overlay(image, shares, _SPEC))]
    _PICTURE.write_bytes(png(side_by_side(pictures).quantize(128, dither=Image.Dither.NONE)))


def split_of(network: Network) -> AdditivePooling:
    """The pooling as a sum over locations."""
    return AdditivePooling(
        DEFAULT.describe(), {name: table.numpy() for name, table in network.pooling.state_dict().items()}
    )


def strongest(shares: Doubles) -> tuple[int, int]:
    """The top left location of the region with the largest sum of shares."""
    windows = np.lib.stride_tricks.sliding_window_view(shares, (REGION, REGION)).sum(axis=(2, 3))
    row, column = np.unravel_index(windows.argmax(), windows.shape)
    return int(row), int(column)


def hidden(image: Pixels, place: tuple[int, int]) -> Pixels:
    """The image with a region in its mean colour."""
    y, x = (STRIDE * one for one in place)
    copy = image.copy()
    copy[:, y : y + STRIDE * REGION, x : x + STRIDE * REGION] = image.mean(axis=(1, 2), keepdims=True)
    return copy


def loaded(path: Path) -> Pixels:
    """An image, (3, 224, 224) preprocessed."""
    return preprocess(path.read_bytes(), _SPEC)


def embed(network: Network, image: Pixels) -> Tensor:
    """Its embedding, (1, d)."""
    return outputs_of(network, image)["embedding"]


@torch.no_grad()
def outputs_of(network: Network, image: Pixels) -> dict[str, Tensor]:
    """All outputs for one image."""
    return network.outputs(torch.from_numpy(image[None]), features=True)


def trained(embeddings: Tensor, labels: Tensor) -> nn.Linear:
    """A linear classifier from zero, by full gradients."""
    linear = nn.Linear(embeddings.shape[1], int(labels.max()) + 1)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimizer = torch.optim.SGD(linear.parameters(), lr=_RATE, momentum=0.9)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(linear(embeddings), labels).backward()
        optimizer.step()
    return linear.requires_grad_(False)
