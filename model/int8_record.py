"""What a manifest says of the backbone in int8: how far its answers are from those in float32, on real images."""

from __future__ import annotations

from typing import Final

from rankone.model.training_record import Record

LEAST_SAME: Final = 0.95
"""Of the ten nearest images in float32, the part that must stay among the ten nearest."""
MOST_LOST: Final = 0.01
"""Of the test accuracy."""
_EXACTLY: Final = 1e-9
"""Of 100 images, one is exactly what may be lost, and its difference is rounded."""
_OTHER_LIBRARY: Final = 2.0
_ROUNDING: Final = 0.001


class Neighbours(Record):
    """How many of the nearest test images in float32 are the nearest in int8 too: queries and items are both in int8."""

    dim: int
    """Numbers of the embeddings that were compared."""
    same_first: float
    """Of the nearest ones."""
    same_ten: float
    """Of the ten nearest, in any order: recall@10 against float32."""


class Compared(Record):
    """A figure in [0, 1] in both precisions."""

    float32: float
    int8: float


class Int8Record(Record):
    """The comparison that a bundle with `model.int8.onnx` has passed."""

    source: str
    """The data set that it was calibrated with and measured on."""
    num_calibration: int
    num_images: int
    """Test images."""
    full: Neighbours
    short: Neighbours | None
    """By short embeddings of the recommended length; None for a bundle without them."""
    recall_at_1: Compared
    """An image of the same class is nearest, by the embeddings of `short` or else of `full`."""
    accuracy: Compared | None
    """None if the classes of the images are not those of the bundle."""
    probe_cosine: float
    """The lowest cosine with float32 of the answers to the synthetic images that every start runs."""

    @property
    def least_cosine(self) -> float:
        """What an engine must reach on those images. Libraries round differently; a CPU that overflows loses far more."""
        return 1 - _OTHER_LIBRARY * (1 - self.probe_cosine) - _ROUNDING

    @property
    def faults(self) -> list[str]:
        """Which bounds are missed, in words."""
        found, judged = [], self.short or self.full
        if judged.same_ten < LEAST_SAME:
            found.append(
                f"of the ten nearest images by {judged.dim:,} numbers {judged.same_ten:.3f} stay, and at least {LEAST_SAME} "
                "must"
            )
        if self.accuracy is not None and self.accuracy.float32 - self.accuracy.int8 > MOST_LOST + _EXACTLY:
            found.append(
                f"the test accuracy falls from {self.accuracy.float32:.3f} to {self.accuracy.int8:.3f}, and may fall by "
                f"{MOST_LOST}"
            )
        return found

    @property
    def summary(self) -> str:
        """In a few words."""
        judged = self.short or self.full
        accuracy = (
            "" if self.accuracy is None else f", accuracy {self.accuracy.float32:.3f} to {self.accuracy.int8:.3f}"
        )
        return f"{judged.same_ten:.3f} of the ten nearest stay ({judged.dim:,} numbers){accuracy}"
