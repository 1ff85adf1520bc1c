"""The whole network, image -> (embedding, logits), and the small description from which it can be built again."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from model.backbone import Backbone, build_backbone
from model.catalogue import Option, build
from model.pooling import SecondOrderPooling


class Network(nn.Module):
    """Backbone, pooling and, where there are classes, a linear classifier on the embedding.

    `forward` takes (B, 3, S, S) normalized images and returns the (B, d) embedding and the (B, classes) logits; without
    classes, the logits are None.
    """

    def __init__(self, backbone: Backbone, pooling: SecondOrderPooling, num_classes: int | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.classifier = nn.Linear(pooling.out_dim, num_classes) if num_classes else None

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalized images -> (B, d) embeddings."""
        return self.pooling(self.backbone(images))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        embedding = self.embed(images)
        return embedding, None if self.classifier is None else self.classifier(embedding)


def build_network(
    *,
    backbone: str = "vgg16",
    weights: str = "imagenet",
    system: str = "cbp-run",
    options: Mapping[str, Option] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> Network:
    """A network from its names; see `build_backbone` and `catalogue.build` for what they may be.

    The classifier starts at zero, as every class is as likely as any other before the first step.
    """
    body = build_backbone(backbone, weights, seed)
    network = Network(body, build(system, body.channels, **(options or {})), num_classes)
    if network.classifier is not None:
        nn.init.zeros_(network.classifier.weight)
        nn.init.zeros_(network.classifier.bias)
    return network
