from __future__ import annotations

import pytest
import torch
from torch import nn

from rankone.model.projection import Flatten, LowRank, UpperTriangle
from tests.oracles import low_rank_by_loops, upper_triangle_by_loops
from tests.tolerances import RELATIVE, relative_error

LAYERS = [Flatten(5), UpperTriangle(5), LowRank(5, 3)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_upper_triangle_holds_every_pair_once_without_weights(dtype: torch.dtype) -> None:
    matrix = torch.randn(2, 7, 7, dtype=dtype)
    layer = UpperTriangle(7)
    assert layer.out_dim == 28
    assert torch.equal(layer(matrix), torch.stack([upper_triangle_by_loops(one).to(dtype) for one in matrix]))


def test_flattened_entries_stand_row_by_row() -> None:
    matrix = torch.arange(18.0).view(2, 3, 3)
    assert Flatten(3)(matrix)[1].tolist() == [9, 10, 11, 12, 13, 14, 15, 16, 17]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_low_rank_is_the_matrix_in_its_basis(dtype: torch.dtype) -> None:
    matrix, layer = torch.randn(2, 7, 7, dtype=torch.float64), LowRank(7, 3, seed=4)
    expected = torch.stack([low_rank_by_loops(one, layer.weight) for one in matrix])
    assert relative_error(layer(matrix.to(dtype)), expected) < RELATIVE[dtype]


def test_low_rank_starts_orthonormal_by_its_seed() -> None:
    first, same, other = LowRank(512, 100, seed=1), LowRank(512, 100, seed=1), LowRank(512, 100, seed=2)
    assert first.weight.shape == (512, 100)
    assert first.out_dim == 10_000
    assert torch.allclose(first.weight.T @ first.weight, torch.eye(100), atol=1e-5)
    assert torch.equal(first.weight, same.weight)
    assert not torch.equal(first.weight, other.weight)


def test_low_rank_starts_at_the_principal_axes_where_asked() -> None:
    """The projector on the leading eigenvectors, whatever their signs."""
    basis = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    matrix = (basis * torch.tensor([9.0, 8, 7, 1, 1, 0.5, 0.1, 0], dtype=torch.float64)) @ basis.T
    layer = LowRank(8, 3)
    layer.start_at_principal_axes(matrix)
    weight = layer.weight.detach().double()
    assert relative_error(weight @ weight.T, basis[:, :3] @ basis[:, :3].T) < 1e-6
    assert layer.weight.requires_grad


@pytest.mark.parametrize("layer", LAYERS)
def test_the_gradient_is_right(layer: nn.Module) -> None:
    assert torch.autograd.gradcheck(layer.double(), torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True))
    layer.float()


def test_the_gradient_reaches_the_basis() -> None:
    layer = LowRank(5, 3).double()
    matrix = torch.randn(2, 5, 5, dtype=torch.float64)

    def of_weight(weight: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(layer, {"weight": weight}, matrix)
        return out

    assert torch.autograd.gradcheck(of_weight, layer.weight)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_batch_answers_as_its_images_alone_and_a_black_one_is_zero(layer: nn.Module) -> None:
    matrices = torch.randn(7, 5, 5)
    matrices[2] = 0
    found = layer(matrices)
    assert relative_error(found, torch.cat([layer(matrix[None]) for matrix in matrices])) < 1e-6
    assert not found[2].any()


@pytest.mark.parametrize("layer", LAYERS)
def test_autocast_changes_nothing(layer: nn.Module) -> None:
    matrices = torch.randn(2, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, rounded = layer(matrices), layer(matrices.to(torch.bfloat16))
    assert torch.equal(found, layer(matrices))
    assert relative_error(rounded, layer(matrices.to(torch.bfloat16).double())) < RELATIVE[torch.float32]


@pytest.mark.parametrize("layer", LAYERS)
def test_other_shapes_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"\(batch, 5, 5\), got shape \(2, 5, 6\)"):
        layer(torch.zeros(2, 5, 6))


@pytest.mark.parametrize("rank", [0, 6])
def test_a_rank_that_cannot_be_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"rank must lie in \[1, 5\], got {rank}"):
        LowRank(5, rank)
