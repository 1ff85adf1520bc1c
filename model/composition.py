"""What a pooling is made of, by name: the parts that a recipe may put together and a bundle writes down."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from torch import nn

from rankone.model.normalization import MatrixLogarithm, MatrixPower, NewtonSchulz, RankOneUpdate
from rankone.model.pooling import Pooling
from rankone.model.projection import Flatten, LowRank, RandomMaclaurin, TensorSketch, UpperTriangle
from rankone.model.statistics import Covariance, Gaussian, Gram, Maximum, Moment, Statistic, Sum

Option = int | float | bool
Layer = Callable[..., nn.Module]


class Nothing(nn.Identity):
    """The part that leaves everything as it is, (B, ...) -> (B, ...)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = self.out_dim = dim


STATISTICS: Final[Mapping[str, type[Statistic]]] = {
    "gram": Gram,
    "covariance": Covariance,
    "moment": Moment,
    "gaussian": Gaussian,
    "max": Maximum,
    "sum": Sum,
}
NORMALIZATIONS: Final[Mapping[str, Layer]] = {
    "none": Nothing,
    "rank-one-update": RankOneUpdate,
    "newton-schulz": NewtonSchulz,
    "matrix-power": MatrixPower,
    "matrix-logarithm": MatrixLogarithm,
}
PROJECTIONS: Final[Mapping[str, Layer]] = {
    "none": Nothing,
    "flatten": Flatten,
    "upper-triangle": UpperTriangle,
    "tensor-sketch": TensorSketch,
    "random-maclaurin": RandomMaclaurin,
    "low-rank": LowRank,
}
_KINDS: Final[Mapping[str, Mapping[str, Layer]]] = {
    "statistic": STATISTICS,
    "normalization": NORMALIZATIONS,
    "projection": PROJECTIONS,
}
_OUT_DIM: Final = "dim"
"""How `out_dim` of a sketch is called here, where `dim`, the D of the features, is never given."""


@dataclass(frozen=True)
class Part:
    """A layer by its name, and the options that differ from the layer's own defaults."""

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)

    @classmethod
    def of(cls, given: str | Mapping[str, Any]) -> Part:
        """From a name, or a mapping with a `name` and options.

        Raises:
            ValueError: a mapping without a name.
        """
        if isinstance(given, str):
            return cls(given)
        options = dict(given)
        if "name" not in options:
            raise ValueError(f"a part needs a name, got {', '.join(options) or 'nothing'}")
        return cls(str(options.pop("name")), options)

    def resolved(self, kind: str) -> Part:
        """The same part with every option of its layer spelled out.

        Raises:
            ValueError: there is no such layer or option; the message lists those there are.
        """
        layers = _KINDS[kind]
        if self.name not in layers:
            raise ValueError(f"unknown {kind} {self.name!r}; known: {', '.join(layers)}")
        defaults = _options_of(layers[self.name])
        if unknown := set(self.options) - set(defaults):
            known = ", ".join(defaults) or "none at all"
            raise ValueError(f"{kind} {self.name} has no option {', '.join(sorted(unknown))}; it has: {known}")
        return Part(self.name, defaults).overridden(self.options)

    def overridden(self, options: Mapping[str, Option]) -> Part:
        """The same part with those of `options` that it has.

        Raises:
            ValueError: an option of another type than the one that is there.
        """
        return Part(
            self.name, {name: _like(value, options.get(name, value), name) for name, value in self.options.items()}
        )

    def layer(self, kind: str, *dim: int) -> Any:
        """The layer itself."""
        options = {"out_dim" if name == _OUT_DIM else name: value for name, value in self.options.items()}
        return _KINDS[kind][self.name](*dim, **options)


@dataclass(frozen=True, kw_only=True)
class Composition:
    """A pooling by the names of its parts, every option spelled out. Made by `compose`."""

    statistic: Part
    normalization: Part
    projection: Part
    root_features: bool = False
    elementwise: bool = True

    @property
    def options(self) -> dict[str, Option]:
        """The options of all parts by name; one that several parts have (`seed`) goes to all of them."""
        return {**self.statistic.options, **self.normalization.options, **self.projection.options}

    @property
    def needs_eigendecomposition(self) -> bool:
        """Whether no graph can hold it: neither ONNX nor its runtimes decompose matrices."""
        return getattr(NORMALIZATIONS[self.normalization.name], "needs_eigendecomposition", False)

    def with_options(self, **options: Option) -> Composition:
        """The same composition with other options; all of them must be in `options`."""
        return replace(self, **{kind: getattr(self, kind).overridden(options) for kind in _KINDS})

    def build(self, channels: int = 512) -> Pooling:
        """The pooling, (B, N, channels) local features -> (B, d).

        Raises:
            ValueError: an option out of its range.
        """
        statistic = self.statistic.layer("statistic")
        dim = channels + statistic.added
        normalization = self.normalization.layer("normalization", dim)
        projection = self.projection.layer("projection", dim)
        return Pooling(
            statistic,
            normalization,
            projection,
            projection.out_dim,
            root_features=self.root_features,
            elementwise=self.elementwise,
        )

    def describe(self) -> dict[str, Any]:
        """Names and options as plain data, of which `compose` makes an equal composition."""
        parts = {kind: getattr(self, kind) for kind in _KINDS}
        described: dict[str, Any] = {kind: {"name": part.name, **part.options} for kind, part in parts.items()}
        return {**described, "root_features": self.root_features, "elementwise": self.elementwise}


def compose(
    statistic: str | Mapping[str, Any] = "gram",
    normalization: str | Mapping[str, Any] = "none",
    projection: str | Mapping[str, Any] | None = None,
    *,
    root_features: bool = False,
    elementwise: bool = True,
) -> Composition:
    """Any statistic with any normalization and any projection, each a name or a mapping with `name` and options.

    Args:
        statistic: a key of `STATISTICS`.
        normalization: a key of `NORMALIZATIONS`.
        projection: a key of `PROJECTIONS`; `flatten` for a matrix if not given, `none` for `max` and `sum`.
        root_features: take the signed square root of the local features first.
        elementwise: end with ssqrt and l2.

    Raises:
        ValueError: an unknown part or option, or parts that do not go together.
    """
    measured = Part.of(statistic).resolved("statistic")
    second = STATISTICS[measured.name].order == 2
    if projection is None:
        projection = "flatten" if second else "none"
    composition = Composition(
        statistic=measured,
        normalization=Part.of(normalization).resolved("normalization"),
        projection=Part.of(projection).resolved("projection"),
        root_features=root_features,
        elementwise=elementwise,
    )
    if second == (composition.projection.name == "none"):
        raise ValueError(
            f"statistic {measured.name} is a {'matrix, which needs a' if second else 'vector, which takes no'} projection"
        )
    if not second and composition.normalization.name != "none":
        raise ValueError(f"statistic {measured.name} is a vector, which takes no normalization")
    return composition


def _options_of(layer: Layer) -> dict[str, Option]:
    """The defaults of a layer's own arguments, so that they stand in one place."""
    parameters = inspect.signature(layer).parameters.values()
    named = {_OUT_DIM if p.name == "out_dim" else p.name: p.default for p in parameters if p.name != "dim"}
    return {name: default for name, default in named.items() if isinstance(default, Option)}


def _like(default: Option, value: Option, name: str) -> Option:
    """`value` if it is of the type of `default`; a whole number will do for a fraction."""
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return value
