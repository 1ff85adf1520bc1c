"""What a report is written from: a network's outputs on the test images, what is recorded of it, and what explains them.

Two things come from running single images again: the evidence in the mistakes of the most confused pairs of classes, and the
effect of RUN on the singular values of local features. RUN on the Gram matrix and on the features have the same spectrum
(Algorithm 3 of the paper); here it works on F / sqrt(N).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from rankone.model.bundle import Manifest
from rankone.model.evidence import EvidenceRecord, why_not
from rankone.model.explanation import Evidence, Explainer
from rankone.model.network import Network
from rankone.model.normalization import RankOneUpdate
from rankone.model.preprocessing import Preprocessing
from rankone.training.data import DataSet, Split
from rankone.training.data.batches import batches, in_order
from rankone.training.embeddings import loaded
from rankone.training.metrics import Doubles, Floats, Ints, confusion_matrix, softmax
from rankone.training.processes import Resources
from rankone.training.progress import progress
from rankone.training.short.figures import ShortReport

NUM_PAIRS: Final = 10
"""Of classes, with examples of their confusion."""
NUM_IMAGES: Final = 64
"""Whose singular values are shown."""


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `true` were taken for class `taken`. `mistake` and `typical` are indices of test images."""

    true: int
    taken: int
    count: int
    mistake: int
    """The image of `true` with the highest probability of `taken`, among those that were taken for it."""
    typical: int | None
    """The image of `taken` with the highest probability, recognized if any was; None if it has no test images."""


@dataclass(frozen=True, eq=False)
class Contrast:
    """The evidence in a mistaken image: for the class it was `taken` for, and for its `true` class."""

    taken: Evidence
    true: Evidence


@dataclass(frozen=True)
class Spectrum:
    """Descending singular values of `F / sqrt(N)`, one row an image: (images, min(N, D)) before and after RUN."""

    before: Doubles
    after: Doubles
    eta: float
    iterations: int
    own: bool
    """Whether this is the network's own RUN; if not, it shows what RUN with the paper's defaults would do."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Row i of `embeddings` and `logits` belongs to image i of `data.test`."""

    data: DataSet
    embeddings: Floats
    """(n, d), of length 1."""
    logits: Floats | None
    """(n, classes); None for a network without a classifier."""
    manifest: Manifest
    """Of the network; its metrics, parity and files are not used."""
    num_parameters: int
    measured_by: str
    """Engine and device that gave the outputs."""
    fingerprint: str | None = None
    """Of the bundle; None for a run that is not exported."""
    spectrum: Spectrum | None = None
    contrasts: Mapping[int, Contrast] | None = None
    """The evidence in the mistaken images that are shown, by their index; None where it has none or was not computed."""
    phase1: Mapping[str, float] | None = None
    """Figures of the network that phase 1 ended with, on the same images; None if not known."""
    short: ShortReport | None = None
    """Of short embeddings; None for a network without them."""
    skipped: tuple[str, ...] = ()
    """A sentence for every image that could not be decoded, and was left out."""
    measured: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of(
        cls,
        network: Network,
        manifest: Manifest,
        data: DataSet,
        outputs: tuple[Floats, Floats | None],
        device: str,
        **about: Any,
    ) -> Findings:
        """The findings for embeddings and logits of the test images, with what the network makes of some of them again.

        `about` are the other fields. The network ends on the CPU.
        """
        embeddings, logits = outputs
        return cls(
            data=data,
            embeddings=embeddings,
            logits=logits,
            manifest=manifest,
            num_parameters=sum(parameter.numel() for parameter in network.parameters()),
            spectrum=spectrum(network, data.test, manifest.preprocessing, device=device),
            contrasts=contrasts(network, manifest, data.test, logits),
            **about,
        )

    @property
    def labels(self) -> Ints:
        """(n,)."""
        return np.array(self.data.test.labels)

    @property
    def title(self) -> str:
        """The network's name; with its version if it is exported."""
        manifest = self.manifest
        return manifest.name if self.fingerprint is None else f"{manifest.name} {manifest.version}"


def most_confused(logits: Floats, labels: Ints, limit: int = NUM_PAIRS) -> list[Confusion]:
    """The pairs with the most mistakes, most first; of equal ones in the order of the classes."""
    predictions, num_classes = logits.argmax(1), logits.shape[1]
    mistakes = confusion_matrix(predictions, labels, num_classes) * ~np.eye(num_classes, dtype=bool)
    probabilities = softmax(logits)
    pairs = []
    for cell in np.argsort(-mistakes, axis=None, kind="stable")[:limit].tolist():
        true, taken = divmod(cell, num_classes)
        if mistakes[true, taken]:
            probability, predicted, members = probabilities[:, taken], predictions == taken, labels == taken
            mistake = _highest(probability, (labels == true) & predicted)
            recognized = members & predicted
            typical = _highest(probability, recognized if recognized.any() else members) if members.any() else None
            pairs.append(Confusion(true, taken, int(mistakes[true, taken]), mistake, typical))
    return pairs


@torch.no_grad()
def contrasts(network: Network, manifest: Manifest, split: Split, logits: Floats | None) -> dict[int, Contrast] | None:
    """The evidence in the mistaken image of each most confused pair, by the image's index.

    Only these images run through the network again, on the CPU.

    Args:
        network: is moved to the CPU.
        manifest: of the network.
        split: the test images.
        logits: (n, classes) of these images; None for a network without a classifier.

    Returns:
        None if there is no classifier, or the pooling has no evidence: see `why_not`.
    """
    if logits is None or why_not(manifest.pooling.parts) is not None:
        return None
    network.cpu().eval()
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    pairs = most_confused(logits, np.array(split.labels))
    images = batches(split.at(pair.mistake for pair in pairs), manifest.preprocessing, in_order(len(pairs), 1))
    found = {}
    for pair, image in zip(pairs, progress(images, [1] * len(pairs), "evidence"), strict=True):
        features_ND = network.outputs(image, features=True)["features"][0].numpy()
        explainer = Explainer(EvidenceRecord.of(features_ND), manifest.pooling.parts, tensors)
        taken, true = (explainer.of_class(features_ND, label) for label in (pair.taken, pair.true))
        found[pair.mistake] = Contrast(taken, true)
    return found


def _highest(probability: Floats, among: Ints) -> int:
    return int(np.where(among, probability, -1).argmax())


@torch.no_grad()
def spectrum(network: Network, split: Split, spec: Preprocessing, *, device: str = "cpu") -> Spectrum:
    """Of up to 64 evenly spaced images of `split`, by the network's own RUN, or the paper's if it has none."""
    network.to(device).eval()
    update, own = _update_of(network)
    pairs = [
        singular_values(network.backbone(batch.to(device)), update.to(device))
        for batch in loaded(split.spaced(NUM_IMAGES), spec, Resources(), "singular values")
    ]
    before, after = (np.concatenate([pair[side].cpu().numpy() for pair in pairs]) for side in (0, 1))
    return Spectrum(before, after, eta=update.eta, iterations=update.iterations, own=own)


def singular_values(features_BND: Tensor, update: RankOneUpdate) -> tuple[Tensor, Tensor]:
    """Of local features scaled by `1 / sqrt(N)`, before and after `update`: twice (B, min(N, D)) float64, descending."""
    scaled_BND = features_BND * features_BND.shape[1] ** -0.5
    return torch.linalg.svdvals(scaled_BND.double()), torch.linalg.svdvals(update.features(scaled_BND).double())


def _update_of(network: Network) -> tuple[RankOneUpdate, bool]:
    """The network's RUN and True, or the paper's and False. On features, without the row that some statistics add."""
    channels, layer = network.backbone.channels, network.pooling.normalization
    if not isinstance(layer, RankOneUpdate):
        return RankOneUpdate(channels).eval(), False
    same = layer if layer.dim == channels else RankOneUpdate(channels, layer.eta, layer.iterations)
    return same.eval(), True
