"""How an RGB image becomes the network's input: the part of preprocessing that a bundle records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

VERSION: Final = 2
"""What decoding does. Change a pixel that it produces, and this number must change.

    1   color profiles ignored; the transparent colour of a PNG is compared without regard to its bits; sBIT is not read
    2   color profiles by `Preprocessing.color`; transparent colours of 2-, 4- and 16-bit PNGs as the standard has them;
        16-bit gray whose samples fill only the low bits that sBIT names is scaled
"""
_VERSIONS: Final = (1, 2)

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

Color = Literal["managed", "ignored"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an RGB image becomes the network's input; bound to the weights that were trained with it.

    The short side is resized to `short_side` pixels and the centre `size` x `size` is kept (bilinear, antialiased);
    values are scaled to [0, 1], then `(x - mean) / std` by channel.
    """

    size: int = 448
    short_side: int | None = None
    """Defaults to `size`: the largest centred square is kept."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color: Color = "managed"
    """Whether colours are converted to sRGB by the ICC profile in the file. The manifests of older bundles lack this field;
    there it means `ignored`."""
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version not in _VERSIONS:
            known = " or ".join(map(str, _VERSIONS))
            raise ValueError(
                f"preprocessing version {self.version} is not version {known} of this rankone: export the bundle again"
            )
        if self.version == 1 and self.color != "ignored":
            raise ValueError("preprocessing version 1 has no colour management: color must be 'ignored'")
        if not 0 < self.size <= self.kept_side:
            raise ValueError(f"size ({self.size}) must be positive and at most short_side ({self.short_side})")

    @property
    def kept_side(self) -> int:
        """Pixels to which the short side is resized."""
        return self.short_side or self.size
