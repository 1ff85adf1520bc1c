from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.paper.page import human
from benchmarks.resources import count_flops, eigh_flops, svd_flops
from rankone.model.catalogue import SYSTEMS, build
from rankone.model.normalization import MatrixPower, NewtonSchulz, RankOneUpdate
from rankone.model.normalization.rank_one import rank_one_update_features
from rankone.model.projection import RandomMaclaurin
from rankone.model.statistics import gram

N, D = 784, 512
FEATURES = torch.rand(1, N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    return gram(FEATURES)


def test_a_product_counts_two_a_multiply_add(matrix: torch.Tensor) -> None:
    assert count_flops(lambda: gram(FEATURES)) == 2 * D * N * D
    assert count_flops(lambda: gram(FEATURES.expand(3, -1, -1))) == 3 * 2 * D * N * D
    assert count_flops(lambda: matrix + matrix) == 0


def test_run_on_features_is_the_papers_3_2_million_and_the_update() -> None:
    """Four products of 784 x 512 in two steps of the power method; then F v and the outer product."""
    v0 = torch.randn(D)
    power_method = 2 * 2 * 2 * N * D
    update = 2 * N * D + 2 * N * D
    assert power_method == 3_211_264
    assert count_flops(lambda: rank_one_update_features(FEATURES, v0, 0.6, 2)) == power_method + update
    more = count_flops(lambda: rank_one_update_features(FEATURES, v0, 0.6, 3))
    assert more - power_method - update == power_method // 2


def test_run_on_the_gram_matrix_is_three_products(matrix: torch.Tensor) -> None:
    """Its update is element-wise, two multiply-adds an entry."""
    assert count_flops(lambda: RankOneUpdate(D).eval()(matrix)) == 3 * 2 * D * D


def test_newton_schulz_takes_12_of_the_papers_15_products(matrix: torch.Tensor) -> None:
    assert pytest.approx(4.03e9, rel=1e-3) == 15 * 2 * D**3
    assert count_flops(lambda: NewtonSchulz(D)(matrix)) == 12 * 2 * D**3


def test_decompositions_count_by_the_textbook(matrix: torch.Tensor) -> None:
    assert count_flops(lambda: torch.linalg.svd(FEATURES, full_matrices=False)) == 6 * N * D**2 + 20 * D**3
    assert svd_flops(D, N) == svd_flops(N, D)
    assert count_flops(lambda: torch.linalg.svd(torch.ones(3, 9, 5))) == 3 * svd_flops(9, 5)
    assert count_flops(lambda: MatrixPower(D)(matrix)) == eigh_flops(D) + 2 * D**3 == 9 * D**3 + 2 * D**3
    assert count_flops(lambda: torch.linalg.eigh(matrix.expand(4, -1, -1))) == 4 * 9 * D**3


def test_the_papers_counts_are_those_of_the_textbook() -> None:
    """1.88 G and 4.21 G: R-SVD for Sigma and V, and for U, Sigma and V."""
    assert 2 * N * D**2 + 11 * D**3 == 1_887_436_800
    assert 4 * N**2 * D + 22 * D**3 == 4_211_605_504


def test_a_head_is_the_sum_of_its_parts(matrix: torch.Tensor) -> None:
    """The sketch is additions alone; Random Maclaurin is a product of 10,000 x 512 x 512."""
    whole = count_flops(lambda: build("cbp-run").eval()(FEATURES))
    assert whole == 2 * N * D * D + 3 * 2 * D * D
    assert count_flops(lambda: RandomMaclaurin(D)(matrix)) == 2 * 10_000 * D * D


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_docs_give_every_system_its_dimension_cost_and_export(name: str) -> None:
    """Counted at full size on tensors without data, which cost no time."""
    docs = Path(__file__).parents[2] / "docs/systems.md"
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", docs.read_text(encoding="utf-8"), re.MULTILINE)
    numbers, cost, exported, reason = (cell.strip() for cell in row.split("|"))
    system, pooling = SYSTEMS[name], build(name).eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        features = torch.empty(1, N, D)
        flops = count_flops(lambda: pooling(features)) - count_flops(lambda: pooling.statistic(features))
    assert (numbers, cost) == (f"{pooling.out_dim:,}", human(flops) if flops else "0")
    assert exported == (f"`{system.sibling}`" if system.composition.needs_eigendecomposition else "")
    assert reason
    assert f"`{name}`" in docs.read_text(encoding="utf-8").partition("## Formulas")[2]
