"""The worst mistakes of a network: the most confused pairs of classes, and where the evidence for both lies in an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from rankone.model.bundle import Manifest
from rankone.model.evidence import EvidenceRecord, why_not
from rankone.model.explanation import Evidence, Explainer
from rankone.model.network import Network
from rankone.training.data import Split
from rankone.training.data.batches import batches, in_order
from rankone.training.metrics import Floats, Ints, confusion_matrix, softmax
from rankone.training.progress import progress

NUM_PAIRS: Final = 10


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
