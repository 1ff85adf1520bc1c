"""The pooling systems by name: what the paper compares, and what a recipe or a bundle may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import nn

from model.normalization import RankOneUpdate
from model.pooling import SecondOrderPooling
from model.projection import Flatten, RandomMaclaurin, TensorSketch
from model.statistics import Gram

Option = int | float | bool
Part = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class System:
    """A row of the catalogue: its parts, and the options each part takes, with their defaults."""

    summary: str
    normalization: Part | None = None
    normalization_options: Mapping[str, Option] = field(default_factory=dict)
    projection: Part = Flatten
    projection_options: Mapping[str, Option] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, Option]:
        """Every option of the system with its default."""
        return {**self.normalization_options, **self.projection_options}


_RUN: Final[Mapping[str, Option]] = {"eta": 0.6, "iterations": 2, "resample": False, "seed": 0}


def _sketch(dim: int) -> Mapping[str, Option]:
    return {"dim": dim, "seed": 0}


SYSTEMS: Final[Mapping[str, System]] = {
    "bcnn": System(summary="B-CNN: the Gram matrix as it is"),
    "cbp-ts": System(
        summary="CBP: Tensor Sketch of the Gram matrix", projection=TensorSketch, projection_options=_sketch(8192)
    ),
    "cbp-rm": System(
        summary="CBP: Random Maclaurin of the Gram matrix", projection=RandomMaclaurin, projection_options=_sketch(8192)
    ),
    "bp-run": System(
        summary="BP + RUN: the normalized Gram matrix", normalization=RankOneUpdate, normalization_options=_RUN
    ),
    "cbp-run": System(
        summary="CBP + RUN: Tensor Sketch of the normalized Gram matrix (the default)",
        normalization=RankOneUpdate,
        normalization_options=_RUN,
        projection=TensorSketch,
        projection_options=_sketch(10_000),
    ),
    "cbp-run-rm": System(
        summary="CBP + RUN: Random Maclaurin of the normalized Gram matrix",
        normalization=RankOneUpdate,
        normalization_options=_RUN,
        projection=RandomMaclaurin,
        projection_options=_sketch(10_000),
    ),
}


def resolve(name: str, options: Mapping[str, Option]) -> dict[str, Option]:
    """All options of system `name`: the catalogue's, overridden by `options`.

    Raises:
        ValueError: an unknown system or option, with the known ones.
    """
    if name not in SYSTEMS:
        raise ValueError(f"unknown pooling system {name!r}; known: {', '.join(SYSTEMS)}")
    defaults = SYSTEMS[name].defaults
    if unknown := set(options) - set(defaults):
        raise ValueError(
            f"{name} has no option {', '.join(sorted(unknown))}; it has: {', '.join(defaults) or 'none at all'}"
        )
    return {**defaults, **options}


def build(name: str, channels: int = 512, **options: Option) -> SecondOrderPooling:
    """The pooling system `name`, (B, N, channels) local features -> (B, d) embeddings.

    Args:
        name: a key of `SYSTEMS`.
        channels: D of the local features.
        **options: override the defaults of `System.defaults`: `eta`, `iterations`, `resample`, `dim`, `seed`.

    Raises:
        ValueError: an unknown system or option, or a value out of its range.
    """
    system, resolved = SYSTEMS.get(name), resolve(name, options)
    assert system is not None
    normalization = system.normalization or _identity
    layer = normalization(channels, **{key: resolved[key] for key in system.normalization_options})
    arguments: dict[str, Any] = {key: resolved[key] for key in system.projection_options}
    if "dim" in arguments:
        arguments["out_dim"] = arguments.pop("dim")
    projection = system.projection(channels, **arguments)
    return SecondOrderPooling(Gram(), layer, projection, out_dim=int(projection.out_dim))  # type: ignore[arg-type]


def _identity(_channels: int) -> nn.Module:
    return nn.Identity()
