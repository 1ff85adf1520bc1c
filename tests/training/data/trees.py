"""Small trees in the layout of each benchmark, with the oddities that the real ones have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

BIRDS: Final = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
VARIANTS: Final = ("Model B200", "F/A-18", "707-320", "F-16A/B")
"""Not in alphabetical order; spaces and slashes as in the real list."""
SCENES: Final = ("airport_inside", "mall", "winecellar")
TEXTURES: Final = ("banded", "chequered", "zigzagged")


def image(path: Path, mode: str = "RGB", form: str = "JPEG", size: tuple[int, int] = (12, 10)) -> Path:
    """A picture whose bytes no other path has, in whatever format, whatever its name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum((place + 1) * ord(letter) for place, letter in enumerate(str(path)))
    picture = Image.linear_gradient("L").rotate(seed % 360).resize(size).convert(mode)
    picture.save(path, form, **({"comment": os.fsencode(path)} if form == "JPEG" else {}))
    return path


def text(path: Path, lines: Sequence[str], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(end.join([*lines, ""]).encode())


def cub(root: Path, end: str = "\n") -> Path:
    """Three birds, four images each, three of which are to train on; the third image of every bird is gray."""
    entries = [
        (f"{bird}/{bird[4:]}_{number:04d}_{7 * number}.jpg", bird, number) for bird in BIRDS for number in range(4)
    ]
    numbers = range(1, len(entries) + 1)
    text(root / "images.txt", [f"{i} {file}" for i, (file, _, _) in zip(numbers, entries, strict=True)], end)
    labels = [f"{i} {BIRDS.index(bird) + 1}" for i, (_, bird, _) in zip(numbers, entries, strict=True)]
    text(root / "image_class_labels.txt", labels, end)
    uses = [f"{i} {int(number != 1)}" for i, (_, _, number) in zip(numbers, entries, strict=True)]
    text(root / "train_test_split.txt", uses, end)
    text(root / "classes.txt", [f"{i} {bird}" for i, bird in enumerate(BIRDS, start=1)], end)
    text(root / "bounding_boxes.txt", [f"{i} 60.0 27.0 325.0 304.0" for i in numbers], end)
    text(root / "attributes" / "certainties.txt", ["1 not visible"], end)
    for file, _, number in entries:
        image(root / "images" / file, mode="L" if number == 2 else "RGB")
    return root


def aircraft(root: Path, end: str = "\n") -> Path:
    """Four variants, two images of each in every split; `root` is the folder `fgvc-aircraft-2013b`."""
    data = root / "data"
    text(data / "variants.txt", VARIANTS, end)
    text(data / "families.txt", ["F/A-18", "King Air"], end)
    for block, use in enumerate(("train", "val", "test")):
        numbers = [f"{34309 + 100 * block + i:07d}" for i in range(2 * len(VARIANTS))]
        entries = [f"{number} {VARIANTS[i % len(VARIANTS)]}" for i, number in enumerate(numbers)]
        text(data / f"images_variant_{use}.txt", entries, end)
        for number in numbers:
            image(data / "images" / f"{number}.jpg", size=(40, 30))
    return root


def mit67(lists: Path, images: Path, end: str = "\n") -> Path:
    """Three scenes; a name with a space, a GIF, a BMP and a PNG called .jpg, CMYK and gray; last lines that do not end."""
    files = {
        "TrainImages.txt": [
            "mall/shopping mall.jpg",
            *(f"{scene}/{scene}_{i}_google.jpg" for scene in SCENES[::-1] for i in (0, 1)),
        ],
        "TestImages.txt": [f"{scene}/{scene}_3_flickr.jpg" for scene in SCENES],
    }
    odd: dict[str, dict[str, Any]] = {
        "mall/mall_0_google.jpg": {"form": "GIF", "mode": "P"},
        "mall/mall_1_google.jpg": {"mode": "CMYK"},
        "winecellar/winecellar_0_google.jpg": {"mode": "L"},
        "winecellar/winecellar_1_google.jpg": {"form": "BMP"},
        "airport_inside/airport_inside_3_flickr.jpg": {"form": "PNG"},
    }
    for name, entries in files.items():
        lists.mkdir(parents=True, exist_ok=True)
        (lists / name).write_bytes(end.join(entries).encode())
        for entry in entries:
            image(images / entry, **odd.get(entry, {}))
    image(images / "mall" / "in_neither_list.jpg")
    return lists


def dtd(root: Path, end: str = "\n") -> Path:
    """Three textures of six images; each partition takes two of them to train on, for validation and to test."""
    for partition in range(1, 11):
        for place, use in enumerate(("train", "val", "test")):
            chosen = [(partition + 2 * place + i) % 6 for i in range(2)]
            entries = [f"{name}/{name}_{number:04d}.jpg" for name in TEXTURES for number in sorted(chosen)]
            text(root / "labels" / f"{use}{partition}.txt", entries, end)
    text(root / "labels" / "labels_joint_anno.txt", ["banded/banded_0000.jpg banded"], end)
    for name in TEXTURES:
        for number in range(6):
            image(root / "images" / name / f"{name}_{number:04d}.jpg")
    return root
