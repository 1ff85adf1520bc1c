"""What the benchmarks measure is right: every rival computes the same thing. Nothing is timed."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from rich.console import Console

from benchmarks import (
    engines,
    gpu,
    head,
    jpeg,
    lance,
    normalization,
    phase1,
    postgres,
    retrieval,
    scale,
    sketch,
    timing,
)
from benchmarks.normalization import contenders, svd_root
from benchmarks.quality import fine_tuning, hiding, int8, options, reduced, short, tuned, variants
from benchmarks.resources import highest, peak_bytes
from benchmarks.serving import cluster, report
from benchmarks.simulation import report as simulation
from benchmarks.timing import Goal, Timing, compare, faster, megabytes, print_goals, print_table
from rankone.cli.bench import BENCHMARKS
from rankone.model.normalization import MatrixPower
from rankone.model.projection import RandomMaclaurin, TensorSketch
from rankone.model.statistics import gram
from tests.tolerances import RELATIVE, relative_error

DTYPES = [torch.float64, torch.float32]
FORMS: dict[str, Callable[[torch.Tensor, TensorSketch], torch.Tensor]] = {
    "FFT per location": sketch.fft_per_location,
    "gather": lambda x, module: sketch.gather_sketch(gram(x), module, sketch.gather_table(module)),
}


def features(dtype: torch.dtype, locations: int = 20, channels: int = 12) -> torch.Tensor:
    return torch.randn(3, locations, channels, dtype=dtype).relu()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bins", [1, 7, 40, 200])  # up to 200 some bins are empty
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_models_tensor_sketch(form: str, bins: int, dtype: torch.dtype) -> None:
    x, module = features(dtype), TensorSketch(12, bins).to(dtype)
    assert relative_error(FORMS[form](x, module), module(gram(x))) <= RELATIVE[dtype]


def test_the_gather_table_lists_every_entry_once() -> None:
    module = TensorSketch(12, 200)
    table = sketch.gather_table(module)
    entries = table[table < 144]
    assert sorted(entries.tolist()) == list(range(144))
    assert len(table) == int(torch.bincount(module.bins.flatten()).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_maclaurin_per_location_is_the_models(dtype: torch.dtype) -> None:
    x, module = features(dtype), RandomMaclaurin(12, 40).to(dtype)
    assert relative_error(sketch.maclaurin_per_location(x, module), module(gram(x))) <= RELATIVE[dtype]


def test_the_sketches_that_are_timed_agree() -> None:
    found = {name: call() for name, call in sketch.contenders(locations=20, channels=12, bins=40).items()}
    rivals = {name: found.pop(name) for name in (sketch.RIVAL, sketch.MACLAURIN)}
    assert len(found) == 4
    for name, value in found.items():
        expected = rivals[sketch.MACLAURIN if "Maclaurin" in name else sketch.RIVAL]
        assert relative_error(value, expected) <= RELATIVE[torch.float32], name
    assert relative_error(rivals[sketch.MACLAURIN], rivals[sketch.RIVAL]) > 0.1


@pytest.mark.parametrize(("locations", "channels"), [(20, 12), (12, 20)])
def test_the_gram_matrix_of_the_svd_root_is_the_square_root(locations: int, channels: int) -> None:
    x = features(torch.float64, locations, channels)
    root = svd_root(x)
    expected = MatrixPower(channels)(x.transpose(1, 2) @ x)
    assert relative_error(root.transpose(1, 2) @ root, expected) <= RELATIVE[torch.float64]


def test_the_backward_of_the_svd_root_is_its_derivative() -> None:
    x = features(torch.float64, 6, 4).requires_grad_()
    assert torch.autograd.gradcheck(svd_root, x)


@pytest.mark.parametrize("backward", [False, True])
def test_contenders_have_their_names_and_run(backward: bool) -> None:
    calls = contenders(2, "cpu", locations=20, channels=12, backward=backward)
    decompositions = ["SVD of F", "eigenvalues of G", "Newton-Schulz", "RUN on F", "RUN on G"]
    assert list(calls) == [*decompositions, "MoNet-2", "CBP + RUN"]
    for call in calls.values():
        call()
    wanted = {"Newton-Schulz": 40} if backward else {"Newton-Schulz": 60, "SVD of F": 90}
    assert {(goal.fast, goal.slow, goal.times) for goal in normalization.goals(backward=backward)} == {
        (fast, slow, times) for fast in ("RUN on F", "RUN on G") for slow, times in wanted.items()
    }


def test_backward_takes_more_memory_than_forward() -> None:
    forward, both = (contenders(1, "cpu", 20, 12, backward=backward) for backward in (False, True))
    for name in forward:
        assert peak_bytes(both[name]) > peak_bytes(forward[name]), name


def test_the_peak_is_of_what_lives_at_the_same_time() -> None:
    x = torch.ones(1_000_000)
    y = torch.ones_like(x)

    def two_then_one() -> torch.Tensor:
        a = torch.add(x, y)  # 4 MB
        b = torch.add(a, y)  # 8 MB
        del a
        return torch.add(b, y)  # 8 MB again

    def three() -> torch.Tensor:
        a = torch.add(x, y)
        b = torch.add(a, y)
        return torch.add(a, b)

    assert peak_bytes(two_then_one) == 8_000_000
    assert peak_bytes(three) == 12_000_000
    assert peak_bytes(lambda: x.add_(y)) == 0


def test_the_peak_counts_what_an_operator_holds_within() -> None:
    """A product of a transposed batch that `@` has to copy: the copy is no tensor of ours."""
    x, y = torch.ones(4, 1, 100, 50), torch.ones(3, 50, 100)
    out, copies = 4 * 3 * 100 * 100 * 4, 4 * 3 * (100 * 50 + 50 * 100) * 4
    assert peak_bytes(lambda: x @ y) == out + copies


def test_what_was_there_before_does_not_count() -> None:
    """Neither a release of it, nor of what an earlier measured call left behind."""
    x = torch.ones(1_000_000)
    kept = [torch.ones(2_000_000)]

    def replace() -> None:
        kept.clear()
        kept.append(torch.add(x, x))

    assert [peak_bytes(replace) for _ in range(3)] == [4_000_000] * 3
    assert highest([(1, -500), (2, 100), (2, -100), (3, 70), (4, 70), (3, -70)]) == 140


@pytest.mark.gpu
def test_the_peak_on_a_gpu() -> None:
    x = torch.ones(1 << 20, device="cuda")
    assert peak_bytes(lambda: x + x, "cuda") == 4 << 20
    assert peak_bytes(lambda: x.add_(x), "cuda") == 0


def test_everyone_is_called_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock of ours: a first call, and as many more as fill 50 ms, whose mean counts."""
    now, called = [0.0], []

    def take(name: str, seconds: float) -> None:
        called.append(name)
        now[0] += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    seconds = {"slow": iter([9.0, 1.0, 3.0]), "fast": iter([9.0] + ([0.011] + [0.01] * 4) * 2)}
    contenders = {name: lambda name=name: take(name, next(seconds[name])) for name in seconds}
    found = compare(contenders, rounds=2, warm_up=1)
    assert called == ["slow", "fast"] + (["slow"] + ["fast"] * 5) * 2
    assert [found[name].median for name in ("slow", "fast")] == pytest.approx([2.0, 0.01])
    assert (found["slow"].low, found["slow"].high) == pytest.approx((1.5, 2.5))


def test_a_table_and_the_goals_say_who_won(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True, width=120)
    monkeypatch.setattr(timing, "console", console)
    timings = {"a": Timing(0.01, 0.02, 0.03), "b": Timing(0.001, 0.002, 0.003)}
    print_table("letters", timings, "a", faster, {"MB": {"a": "1.00", "b": "2.50"}})
    print_goals(timings, Goal("b", "a", 10), Goal("b", "a", 10.5))
    text = console.export_text()
    row = next(line for line in text.splitlines() if " b " in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["b", "2.00", "1.00 - 3.00", "10.0 x faster", "2.50"]
    assert "b: 10.0 x faster than a (at least 10 x: met)" in text
    assert "b: 10.0 x faster than a (at least 10.5 x: missed)" in text
    assert (faster(0.5), faster(4)) == ("2.0 x faster", "4.0 x slower")
    assert megabytes({"a": 1_250_000}) == {"a": "1.25"}


def test_the_command_knows_every_benchmark() -> None:
    speed = (head, sketch, normalization, phase1, engines, gpu, jpeg, report, cluster, retrieval, postgres, lance)
    modules = (*speed, fine_tuning, short, tuned, options, hiding, reduced, variants, int8, scale, simulation)
    assert dict(zip(BENCHMARKS.values(), BENCHMARKS, strict=True)).keys() == {module.__name__ for module in modules}
