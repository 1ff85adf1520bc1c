"""The cost of RUN, on features and on a Gram matrix, against Newton-Schulz and two square roots.

Targets on a CPU, one image, forward: RUN at least 60 times faster than Newton-Schulz and 90 times faster than SVD;
forward and backward at least 40 times faster than Newton-Schulz. On four K40 at batch 32 the paper has RUN 330 times
faster than Newton-Schulz, and CBP + RUN 5,400 times faster than MoNet-2. The time of the Gram matrix is not counted:
every second-order system computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.resources import peak_bytes
from benchmarks.timing import Call, Goal, compare, console, faster, machine, megabytes, print_goals, print_table
from rankone.model.catalogue import build
from rankone.model.normalization import MatrixPower, NewtonSchulz, RankOneUpdate
from rankone.model.statistics import gram

LOCATIONS, CHANNELS = 784, 512
RIVAL, SVD, ON_FEATURES, ON_GRAM = "Newton-Schulz", "SVD of F", "RUN on F", "RUN on G"
HEADS = {"MoNet-2": "monet-2", "CBP + RUN": "cbp-run"}
ROUNDS = {("cpu", 1): 15, ("cpu", 32): 3, ("cuda", 1): 20, ("cuda", 32): 10}
"""By device and batch; a decomposition of a batch of 32 takes seconds on a CPU."""


def svd_root(features_BND: Tensor) -> Tensor:
    """`U S^(1/2) V^T`, (B, N, D) -> (B, N, D), with the Gram matrix `(F^T F)^(1/2)`; the paper's baseline.

    The gradient is torch's own: NaN where singular values are equal.
    """
    left_BNK, values_BK, right_BKD = torch.linalg.svd(features_BND, full_matrices=False)
    root_BND: Tensor = (left_BNK * values_BK.sqrt().unsqueeze(1)) @ right_BKD
    return root_BND


def contenders(
    batch: int, device: str, locations: int = LOCATIONS, channels: int = CHANNELS, *, backward: bool = False
) -> dict[str, Call]:
    """Every normalization, and two whole heads, by name: forward alone, or with the gradient of the input."""
    features = torch.randn(batch, locations, channels, generator=torch.Generator().manual_seed(0)).relu().to(device)
    matrix, update = gram(features), RankOneUpdate(channels).eval().to(device)
    layers: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        SVD: (svd_root, features),
        "eigenvalues of G": (MatrixPower(channels), matrix),
        RIVAL: (NewtonSchulz(channels), matrix),
        ON_FEATURES: (update.features, features),
        ON_GRAM: (update, matrix),
        **{name: (build(system, channels).eval().to(device), features) for name, system in HEADS.items()},
    }
    run = _forward_backward if backward else _forward
    return {name: partial(run, layer, x.clone().requires_grad_(backward)) for name, (layer, x) in layers.items()}


def main() -> None:
    """Prints a table for each device, batches of 1 and 32, forward, and forward with backward."""
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        console.print(f"[bold]normalization[/bold]: {machine(device)}; {LOCATIONS} x {CHANNELS}, float32")
        for batch in (1, 32):
            for backward in (False, True):
                _measure(batch, device, backward=backward)


def _measure(batch: int, device: str, *, backward: bool) -> None:
    calls, rounds = contenders(batch, device, backward=backward), ROUNDS[device, batch]
    memory = {name: peak_bytes(call, device) / batch for name, call in calls.items()}
    warm_up = 0 if (device, batch) == ("cpu", 32) else 2  # measuring memory has warmed up
    timings = compare(calls, rounds, warm_up, device)
    passes = "forward and backward" if backward else "forward"
    title = f"batch {batch}, {passes}, {rounds} rounds"
    print_table(title, timings, RIVAL, faster, {"peak MB an image": megabytes(memory)})
    if (device, batch) == ("cpu", 1):
        print_goals(timings, *goals(backward=backward))


def goals(*, backward: bool) -> list[Goal]:
    """The targets for one image on a CPU."""
    targets = {RIVAL: 40} if backward else {RIVAL: 60, SVD: 90}
    return [Goal(fast, slow, times) for fast in (ON_FEATURES, ON_GRAM) for slow, times in targets.items()]


def _forward(layer: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with torch.inference_mode():
        layer(x)


def _forward_backward(layer: Callable[[Tensor], Tensor], x: Tensor) -> None:
    out = layer(x)
    torch.autograd.grad(out, x, torch.ones_like(out))
