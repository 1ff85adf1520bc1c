"""`rankone backbones`: what there is to choose from, and what it costs here."""

from __future__ import annotations

from dataclasses import asdict

import orjson
from rich.table import Table
from tyro.conf import Positional

from rankone.cli import command
from rankone.cli.show import console
from rankone.model.backbone import BACKBONES, facts_of, milliseconds


@command
def backbones(
    names: Positional[tuple[str, ...]] = tuple(BACKBONES), size: int = 448, time: bool = True, json: bool = False
) -> None:
    """Lists backbones: channels, stride, parameters, GFLOP and milliseconds an image, and whether weights are here.

    Args:
        names: which; torchvision's if none is named. Those of timm are timm/NAME, for instance
            timm/vit_small_patch14_dinov2, and need rankone[timm].
        size: side of the images in pixels.
        time: measure milliseconds on this CPU: seconds for each backbone.
        json: print a list of objects instead of a table.
    """
    rows = ((facts_of(name, size), milliseconds(name, size) if time else None) for name in names)
    if json:
        print(orjson.dumps([{**asdict(facts), "ms": ms} for facts, ms in rows]).decode())
        return
    table = Table(title=f"backbones at {size} x {size}")
    for column in ("name", "channels", "stride", "locations", "parameters", "GFLOP", "ms here", "weights here"):
        table.add_column(column, justify="left" if column == "name" else "right", no_wrap=column == "name")
    for facts, ms in rows:
        table.add_row(
            facts.name,
            f"{facts.channels}",
            f"{facts.stride}",
            f"{facts.locations}",
            f"{facts.parameters / 1e6:.1f} M",
            f"{facts.gflop:.1f}",
            "" if ms is None else f"{ms:.0f}",
            "yes" if facts.at_hand else "no",
        )
    console.print(table)
