"""The whole network, image -> embedding, logits and short embedding, and the description it can be built from again."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rankone.model.backbone import REDUCED, Backbone, build_backbone
from rankone.model.bundle import WEIGHTS, Bundle
from rankone.model.catalogue import DEFAULT
from rankone.model.classifier import LowRankClassifier
from rankone.model.composition import Composition, compose
from rankone.model.pooling import Pooling, l2_normalize
from rankone.model.projection import LowRank
from rankone.model.reduction import Reduction
from rankone.model.shared import at_least_float32


class ShortEmbedding(nn.Module):
    """The learned map of `model.reduction`, (B, d) embeddings -> (B, m) short ones, in float32 or float64."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.matrix: Tensor
        self.mean: Tensor
        self.register_buffer("matrix", torch.zeros(out_dim, dim))
        self.register_buffer("mean", torch.zeros(dim))

    @classmethod
    def of(cls, reduction: Reduction) -> ShortEmbedding:
        """The map as a layer."""
        layer = cls(len(reduction.mean), reduction.dim)
        layer.load_state_dict({"matrix": torch.tensor(reduction.matrix), "mean": torch.tensor(reduction.mean)})
        return layer

    def forward(self, embedding_Bd: Tensor) -> Tensor:
        moved = embedding_Bd - embedding_Bd.norm(dim=1, keepdim=True) * self.mean
        return l2_normalize(F.linear(moved, self.matrix))


class Network(nn.Module):
    """Backbone, pooling and, where there are classes, a classifier.

    `forward` takes (B, 3, S, S) normalized images and returns the (B, d) embedding, of length 1 (a black image's is 0), and the
    (B, classes) logits; without classes, the logits are None.

    The classifier reads what the pooling system ends in. That is the embedding itself, but for two cases: a system without an
    element-wise step, whose embedding is its vector scaled to length 1; and LRBP's classifier, which reads the projected
    matrix, scaled to length 1 so that its scores do not grow with the contrast of the image.

    `short` is learned after training; None until then.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling,
        classifier: nn.Module | None,
        short: ShortEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.classifier = classifier
        self.short = short

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalized images -> (B, d) embeddings."""
        return self.embedding_of(self.represent(images))

    def represent(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalized images -> (B, d), what the classifier reads."""
        return self.represent_features(self.backbone(images))

    def represent_features(self, features_BND: Tensor) -> Tensor:
        """(B, N, D) local features, as the backbone gives them -> (B, d), what the classifier reads."""
        pooled = self.pooling.pool(features_BND)
        return l2_normalize(pooled) if self._reads_matrices else self.pooling.finish(pooled)

    def embedding_of(self, represented: Tensor) -> Tensor:
        """What `represent` returned -> (B, d) embeddings."""
        finished = self.pooling.finish(represented) if self._reads_matrices else represented
        return finished if self.pooling.elementwise else l2_normalize(finished)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        represented = self.represent(images)
        logits = None if self.classifier is None else self.classifier(represented)
        return self.embedding_of(represented), logits

    def outputs(self, images: Tensor, *, features: bool = False) -> dict[str, Tensor]:
        """All that a bundle gives out: the embedding and, where the network has them, logits and the short embedding.

        With `features` also the local features (B, N, D), divided by sqrt(N): see `model.evidence`.
        """
        features_BND = self.backbone(images)
        represented = self.represent_features(features_BND)
        embedding = self.embedding_of(represented)
        found = {"embedding": embedding}
        if self.classifier is not None:
            found["logits"] = self.classifier(represented)
        if self.short is not None:
            found["short"] = self.short(embedding)
        if features:  # the first step of `gram`, which a compiler computes once
            found["features"] = at_least_float32(features_BND) * features_BND.shape[1] ** -0.5
        return found

    @property
    def _reads_matrices(self) -> bool:
        return isinstance(self.classifier, LowRankClassifier)


def build_network(
    *,
    backbone: str = "vgg16",
    weights: str = "imagenet",
    pooling: Composition = DEFAULT,
    num_classes: int | None = None,
    classifier_rank: int | None = None,
    seed: int = 0,
    size: int = 448,
    reduce: int | None = REDUCED,
) -> Network:
    """A network from names: see `build_backbone`, and `catalogue.composition` or `compose` for the pooling.

    Args:
        backbone: its name.
        weights: of the backbone.
        pooling: the parts of the pooling.
        num_classes: how many classes there are; none gives a network that only embeds.
        classifier_rank: of LRBP's low-rank classifier; a linear one if not given.
        seed: draws random weights.
        size: of the images.
        reduce: the most channels of the local features, see `build_backbone`.

    Raises:
        ValueError: a low-rank classifier on a pooling without a low-rank projection.
    """
    body = build_backbone(backbone, weights, seed, size=size, reduce=reduce)
    pool = pooling.build(body.channels)
    return Network(body, pool, build_classifier(pool, num_classes, classifier_rank, seed) if num_classes else None)


def open_network(bundle: Bundle) -> Network:
    """The network of a bundle, by its manifest and weights, for what the exported forms do not give out.

    Raises:
        BundleError: the bundle has no weights.
    """
    manifest = bundle.manifest
    network = build_network(
        backbone=manifest.backbone.name,
        weights="random",
        pooling=compose(**manifest.pooling.parts),
        num_classes=len(manifest.classes) if manifest.classes else None,
        classifier_rank=manifest.recipe.get("classifier_rank"),
        size=manifest.preprocessing.size,
        reduce=manifest.recipe.get("reduce", REDUCED),
    )
    if manifest.reduction is not None:
        network.short = ShortEmbedding(manifest.dim, manifest.reduction.dim)
    network.load_state_dict(load_file(bundle.file(WEIGHTS)))
    return network.eval()


def build_classifier(pooling: Pooling, num_classes: int, rank: int | None, seed: int) -> nn.Module:
    """A linear classifier that starts at zero, every class as likely as any other; or a low-rank one, drawn from `seed`.

    Raises:
        ValueError: a low-rank classifier on a pooling without a low-rank projection.
    """
    if rank is not None:
        if not isinstance(pooling.projection, LowRank):
            raise ValueError(
                "a low-rank classifier reads a low-rank projection: use system lrbp, or projection low-rank"
            )
        return LowRankClassifier(pooling.projection.rank, num_classes, rank, seed)
    linear = nn.Linear(pooling.out_dim, num_classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
