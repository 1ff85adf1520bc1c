"""FGVC-Aircraft 2013b: 100 variants; 3,334 images to train on, 3,333 for validation, 3,333 to test with.

As distributed: `images_variant_{train,val,test}.txt` in `data/`, a line an image: its number, a space, its variant. Variants
hold spaces and slashes (`F/A-18`, `Boeing 717`, `DHC-8-100`), so only the first space divides. `variants.txt` gives the
order of the classes. The lowest 20 rows of every photograph are a banner with its copyright: no part of an aircraft, but
the same photographer's often hang together, so a network can read it.

Source: Maji et al., Fine-Grained Visual Classification of Aircraft, 2013.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from rankone.training.datasets.dataset import DataSet, Split
from rankone.training.datasets.lists import index_of, inside, lines, pairs

BANNER: Final = 20


def read_aircraft(
    root: Path, banner: Literal["keep", "cut"] = "keep", train: Literal["train", "train+val"] = "train+val"
) -> DataSet:
    """The data set in `root`, the folder `fgvc-aircraft-2013b` or the one it was unpacked in.

    Args:
        root: where it is.
        banner: what becomes of the 20 lowest rows of every photograph.
        train: the official split alone, with validation images of its own, or both together as everyone reports.

    Raises:
        DataError: a list is missing, or names a variant that there is not.
    """
    data = inside(root, "variants.txt", "data", "fgvc-aircraft-2013b/data")
    classes = tuple(lines(data / "variants.txt"))
    index = {name: i for i, name in enumerate(classes)}

    def split(use: str) -> Split:
        source = data / f"images_variant_{use}.txt"
        found = pairs(source)
        return Split(
            paths=tuple(data / "images" / f"{number}.jpg" for number, _ in found),
            labels=tuple(index_of(variant, index, source) for _, variant in found),
            banner=BANNER if banner == "cut" else 0,
        )

    fitted, validation = split("train"), split("val")
    joined = train == "train+val"
    return DataSet(
        name="aircraft",
        classes=classes,
        train=fitted + validation if joined else fitted,
        validation=None if joined else validation,
        test=split("test"),
        protocol=f"variants, {train}; banner {'kept' if banner == 'keep' else 'cut off'}",
    )
