"""The map to short embeddings in the directory of a run, between its training and its export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from safetensors.numpy import save as serialize

from rankone.model.reduction import Reduction
from rankone.training.run import SHORT, replace_file
from rankone.training.short.learning import Learned

_ABOUT: Final = ("shrinkage", "method", "source", "num_images", "num_classes")
_HALVES: Final = ("half0", "half1")


def save_learned(learned: Learned, folder: Path) -> None:
    """Writes the map with both halves and how it was learned, whole or not at all."""
    maps = {"whole": learned.reduction, **dict(zip(_HALVES, learned.halves or (), strict=False))}
    tensors = {f"{name}.{part}": getattr(one, part) for name, one in maps.items() for part in ("matrix", "mean")}
    about = json.dumps({name: getattr(learned, name) for name in _ABOUT})
    replace_file(folder / SHORT, serialize(tensors, {"learned": about}))


def load_learned(folder: Path) -> Learned | None:
    """What `save_learned` wrote; None if it did not."""
    path = folder / SHORT
    if not path.exists():
        return None
    with safe_open(path, framework="np") as file:
        about: dict[str, Any] = json.loads(file.metadata()["learned"])
        names = set(file.keys())
        maps = {
            name: Reduction(file.get_tensor(f"{name}.matrix"), file.get_tensor(f"{name}.mean"))
            for name in ("whole", *_HALVES)
            if f"{name}.matrix" in names
        }
    halves = (maps[_HALVES[0]], maps[_HALVES[1]]) if _HALVES[0] in maps else None
    return Learned(reduction=maps["whole"], halves=halves, **about)
