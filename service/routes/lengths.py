"""Embeddings of the length that a request or an index asks for: the full ones, or the first numbers of the short ones."""

from __future__ import annotations

from rankone.model.bundle import Bundle
from rankone.model.engine import Outputs
from rankone.model.reduction import Floats, shorten
from rankone.service.errors import Problem


def check_dim(dim: int | None, bundle: Bundle, name: str = "dim") -> int:
    """The number of dimensions to answer with: `dim`, or that of the full embedding.

    Raises:
        Problem: 409 the bundle has no short embeddings; 422 it has none so long.
    """
    manifest = bundle.manifest
    if dim is None or dim == manifest.dim:
        return manifest.dim
    if manifest.reduction is None:
        raise Problem(
            409,
            f"{name} is {dim}, and {manifest.name} {manifest.version} has no short embeddings, only full ones of "
            f"{manifest.dim:,} numbers: make a bundle that has them with `rankone reduce BUNDLE DATA OUT`, and serve that",
        )
    if not 1 <= dim <= manifest.reduction.dim:
        raise Problem(
            422,
            f"{name} is {dim}; short embeddings have 1 to {manifest.reduction.dim:,} numbers, full ones {manifest.dim:,}",
        )
    return dim


def of_length(outputs: Outputs, dim: int) -> Floats:
    """The embeddings (n, dim) in a network's outputs; `check_dim` has accepted `dim`."""
    if dim == outputs.embedding.shape[1]:
        return outputs.embedding
    assert outputs.short is not None
    return shorten(outputs.short, dim)
