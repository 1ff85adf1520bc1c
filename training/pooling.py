"""The pooling of a recipe: a system of the catalogue by its name, or one put together by hand."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator
from tyro.conf import Suppress

from rankone.model.catalogue import SYSTEMS, composition
from rankone.model.composition import Composition, Option, compose

_DEFAULT_SYSTEM: Final = "cbp-run"

PartFields = dict[str, Option | str]


class Frozen(BaseModel):
    """Fields that are fixed once they are checked; unknown ones are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Pooling(Frozen):
    """A pooling system by its name, or put together by hand from `statistic`, `normalization` and `projection`."""

    system: str | None = None
    """A name of `model.catalogue.SYSTEMS`; cbp-run if neither a system nor a part is given."""
    options: dict[str, Option] = Field(default_factory=dict)
    """Of the system, for instance `{eta: 0.5, dim: 8192}`; unknown ones are errors."""
    statistic: str | None = None
    """gram, covariance, moment, gaussian, max or sum; gram if another part is given."""
    normalization: str | PartFields | None = None
    """A name, or name and options: `{name: newton-schulz, iterations: 5}`; none if another part is given."""
    projection: str | PartFields | None = None
    """A name, or name and options: `{name: tensor-sketch, dim: 8192}`; flatten if another part is given."""
    root_features: Suppress[bool | None] = None
    """By hand, in YAML: take the signed square root of the local features first; not if not given."""
    elementwise: Suppress[bool | None] = None
    """By hand, in YAML: end with ssqrt and l2; so it does if not given."""

    @model_validator(mode="after")
    def _known(self) -> Pooling:
        if self._parts and (self.system is not None or self.options):
            raise ValueError(f"give a system with its options, or parts ({', '.join(self._parts)}), not both")
        self.composition.build()  # its parts know best which values they take
        return self

    @property
    def name(self) -> str:
        """The name of the system, or those of its parts."""
        parts = self.composition
        composed = (parts.statistic.name, parts.normalization.name, parts.projection.name)
        return "-".join(composed) if self._parts else self.system or _DEFAULT_SYSTEM

    @property
    def sibling(self) -> str | None:
        """The name of the system to train instead where one that cannot be exported is to be."""
        return SYSTEMS[self.name].sibling if not self._parts else None

    @property
    def composition(self) -> Composition:
        """Its parts, every option spelled out."""
        if self._parts:
            return compose(**self._parts)
        return composition(self.system or _DEFAULT_SYSTEM, **self.options)

    @property
    def _parts(self) -> dict[str, Any]:
        return self.model_dump(exclude={"system", "options"}, exclude_none=True)
