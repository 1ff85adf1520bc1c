"""`rankone explain`: where in an image the evidence for a class, or for a match, lies, as a picture and in words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg

from rankone.cli import command
from rankone.cli.images import HERE, WAIT_S, At, ImageFile
from rankone.cli.output import InputError
from rankone.client import Client, Explanation
from rankone.model.explanation import ninths
from rankone.model.folders import name_of


@command
def explain(
    image: Positional[Path],
    label: Annotated[str | None, arg(name="class")] = None,
    item: str | None = None,
    item_image: Path | None = None,
    index: str = "default",
    out: Path | None = None,
    service: At = HERE,
) -> None:
    """Writes a picture of where the evidence lies, orange for and blue against, and prints a summary of the shares.

    Args:
        image: an image.
        label: explain this class; the most probable one if neither a class nor an item is given.
        item: explain the match with the item of this id instead.
        item_image: the image of the item, whose side is written too.
        index: name of the item's index.
        out: the picture, a .png file; IMAGE.evidence.png in this folder if not given. The item's side is beside it,
            with .item.png.
        service: to ask.
    """
    if label is not None and item is not None:
        raise InputError("give --class or --item, not both")
    if item is None and item_image is not None:
        raise InputError("--item-image is the image of an item: give --item too")
    out = out or Path(f"{image.stem}.evidence.png")
    if out.suffix != ".png" or not out.parent.is_dir():
        raise InputError(f"{name_of(out)}: give the name of a .png file in a folder that is there")
    with Client(service.url, key=service.key) as client:
        client.wait_until_ready(WAIT_S)
        sides = client.explain(
            ImageFile(image),
            label,
            item_id=item,
            item_image=None if item_image is None else ImageFile(item_image),
            index=index,
            overlay=True,
        )
    for side in sides:
        path = out if side.side == "query" else out.with_suffix(".item.png")
        assert side.overlay is not None
        path.write_bytes(side.overlay)
        print("\n".join([f"{name_of(path)}: {_title(side)}", *summary(side)]))


def summary(side: Explanation) -> list[str]:
    """The score as a sum, and the parts of the picture with the largest and the smallest share of it."""
    shares = side.shares.astype(np.float64)
    named = ninths(shares)
    most, least = max(named, key=lambda name: named[name]), min(named, key=lambda name: named[name])
    rows, columns = shares.shape
    against = shares[shares < 0].sum()
    return [
        f"  score {side.score:.4f} = {shares.sum():.4f} from {rows} x {columns} locations + {side.rest:.4f} from none of them",
        f"  for {shares[shares > 0].sum():.4f}, against {against:.4f}",
        f"  most of it: {most} ({named[most]:+.4f}); least: {least} ({named[least]:+.4f})",
        *([] if side.likeness is None else [f"  cosine of this image with the stored item: {side.likeness:.4f}"]),
    ]


def _title(side: Explanation) -> str:
    if side.label is not None:
        return f"evidence for the class {side.label}"
    return f"evidence for the match with {side.id}, {'in the query' if side.side == 'query' else 'in the item'}"
