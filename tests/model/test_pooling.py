from __future__ import annotations

import torch

from rankone.model.catalogue import build
from rankone.model.pooling import l2_normalize, signed_sqrt


def test_signed_sqrt_is_exact() -> None:
    x = torch.tensor([4.0, -9.0, 0.0, 1e-20], requires_grad=True)
    expected = torch.tensor([2.0, -3.0, 0.0, 1e-10])
    assert torch.equal(signed_sqrt(x), expected)
    with torch.no_grad():
        assert torch.equal(signed_sqrt(x), expected)


def test_signed_sqrt_has_the_right_slope_and_a_bounded_one_at_0() -> None:
    assert torch.autograd.gradcheck(
        signed_sqrt, torch.tensor([4.0, -9.0, 0.3, -0.1], dtype=torch.float64, requires_grad=True)
    )
    x = torch.tensor([[4.0, 0.0, 1e-9, -4.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    signed_sqrt(x).sum().backward()
    bound = 1 / (2 * 0.1 * 2**0.5)  # the root mean square of the first row's roots is sqrt(2)
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.tensor([[0.25, bound, bound, 0.25], [5000.0] * 4]))


def test_signed_sqrt_has_the_right_second_derivative() -> None:
    x = torch.tensor([[4.0, -9.0, 0.9, -0.5]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(signed_sqrt, x)


def test_the_bounded_slope_does_not_depend_on_the_scale_of_the_image() -> None:
    """An embedding is the same for z and 100 z; so are its gradients, times 1 / 100."""
    z = torch.randn(1, 50) ** 3
    gradients = []
    for scale in (1.0, 100.0):
        x = (scale * z).requires_grad_()
        l2_normalize(signed_sqrt(x))[0, :10].sum().backward()
        assert x.grad is not None
        gradients.append(x.grad * scale)
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4)


def test_l2_keeps_a_zero_row_zero() -> None:
    rows = l2_normalize(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_pooling_stays_float32_under_autocast() -> None:
    features = torch.rand(2, 9, 8)
    pooling = build("cbp-run", 8, dim=50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pooling(features)
    assert torch.equal(found, pooling(features))
