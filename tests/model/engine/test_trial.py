"""The trial of engines: whom it prefers, by a clock that only they turn, and what becomes of engines that fail in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rankone.model.bundle import Bundle
from rankone.model.engine import trial
from rankone.model.engine.check import probe
from rankone.model.engine.trial import Candidate, Times, Trial, best_times, try_out
from tests.service.hangs import endless

ONNX: Candidate = ("onnx", "float32")
FULL: Candidate = ("openvino", "float32")
HALF: Candidate = ("openvino", "bfloat16")


def trial_of(**processor_s: float) -> Trial:
    """A trial on a machine with nothing else to do, and two threads each."""
    names = {"onnx": ONNX, "half": HALF, "full": FULL}
    return Trial({names[name]: Times(took, took / 2) for name, took in processor_s.items()})


@pytest.mark.parametrize(
    ("onnx", "half", "full", "ranking"),
    [
        (0.100, 0.050, 0.080, [HALF, FULL, ONNX]),
        (0.100, 0.089, 0.200, [HALF, ONNX, FULL]),
        (0.100, 0.091, 0.095, [ONNX, HALF, FULL]),  # less than 10 %
        (0.100, 0.091, 0.050, [FULL, ONNX, HALF]),
    ],
)
def test_the_first_candidate_is_kept_where_others_are_hardly_faster(
    onnx: float, half: float, full: float, ranking: list[Candidate]
) -> None:
    assert trial_of(onnx=onnx, half=half, full=full).ranking == ranking


@pytest.mark.parametrize(("clock_s", "ranking"), [(0.055, [HALF, ONNX]), (0.100, [ONNX, HALF])])
def test_an_engine_that_uses_little_of_the_processor_and_ends_late_is_not_fast(
    clock_s: float, ranking: list[Candidate]
) -> None:
    """Up to 20 % later is other work on the machine."""
    assert Trial({ONNX: Times(0.1, 0.05), HALF: Times(0.05, clock_s)}).ranking == ranking


def test_a_trial_tells_its_times() -> None:
    said = "an image takes onnx float32 911.0 ms, openvino bfloat16 140.0 ms of processor time"
    assert str(trial_of(onnx=0.911, half=0.14)) == said
    assert Trial({}).ranking == []


class Clocked:
    """An engine that takes so many seconds a run, the last of them again and again; the processor's are a tenth of them."""

    def __init__(self, clock: SimpleNamespace, *takes_s: float) -> None:
        self._clock, self._takes_s, self.runs = clock, list(takes_s), 0

    def run(self, images: Any) -> None:
        assert images.shape == (1, 3, 32, 32)
        self._clock.now += self._takes_s[min(self.runs, len(self._takes_s) - 1)]
        self.runs += 1


def timed(clock: SimpleNamespace, **engines: Any) -> list[Any]:
    found = best_times(
        dict(enumerate(engines.values())), probe(32)[:1], lambda: clock.now, lambda: 100 + clock.now / 10
    )
    return [(pytest.approx(one.processor_s), pytest.approx(one.clock_s)) for one in found.values()]


def test_the_best_time_of_two_seconds_of_turns_counts() -> None:
    clock = SimpleNamespace(now=5.0)
    first, second = Clocked(clock, 0.1), Clocked(clock, 0.5, 0.5, 0.05)  # disturbed twice
    assert timed(clock, first=first, second=second) == [(0.01, 0.1), (0.005, 0.05)]
    assert first.runs == second.runs
    assert 7.0 <= clock.now <= 7.15


def test_slow_engines_have_one_turn_each() -> None:
    clock = SimpleNamespace(now=0.0)
    assert timed(clock, first=Clocked(clock, 5.0), second=Clocked(clock, 3.0)) == [(0.5, 5.0), (0.3, 3.0)]


def test_engines_are_tried_in_a_process_of_their_own(tiny: Bundle) -> None:
    """`tiny` has no backbone, so that OpenVINO cannot lower it."""
    found = try_out(tiny, [ONNX, HALF, FULL], threads=1)
    assert found.crash is None
    assert list(found.times) == [ONNX, FULL]
    assert all(0 < took.processor_s < 60 and took.clock_s > 0 for took in found.times.values())
    (fault,) = found.faults
    assert fault.startswith("openvino bfloat16: ")


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that the trial imports for openvino; it may talk."""
    module = tmp_path / "openvino.py"
    monkeypatch.syspath_prepend(tmp_path)
    module.write_text("print('a library says {this}', flush=True)\n")
    return module


@pytest.mark.parametrize(
    ("code", "crash"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "openvino float32 failed: Illegal instruction"),
        ("import os; os.write(2, b'no room\\n'); os._exit(3)", "openvino float32 failed: no room"),
        ("raise SystemExit('no licence')", "openvino float32 failed: no licence"),
    ],
)
def test_a_library_that_ends_its_process_ends_only_the_trial(
    tiny: Bundle, instead: Path, code: str, crash: str
) -> None:
    instead.write_text(f"{instead.read_text()}{code}\n")
    assert try_out(tiny, [ONNX, FULL], threads=1) == Trial({}, (), f"the trial of {crash}")


def test_an_engine_that_cannot_be_loaded_is_left_out(tiny: Bundle, instead: Path) -> None:
    instead.write_text(f"{instead.read_text()}raise ImportError('libtbb.so.12 is missing')\n")
    found = try_out(tiny, [ONNX, FULL], threads=1)
    assert (list(found.times), found.crash) == ([ONNX], None)
    assert found.faults == (
        "openvino float32: the openvino engine needs openvino: install rankone[openvino], or set RANKONE_ENGINE=onnx",
    )


def test_a_trial_that_hangs_is_ended(tiny: Bundle, instead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    instead.write_text("import time; time.sleep(600)\n")
    monkeypatch.setattr(trial, "_LIMIT_S", 0.5)
    assert try_out(tiny, [FULL], threads=1) == Trial({}, crash="the trial did not end within 0.5 s")


def test_a_trial_ends_with_the_process_that_made_it(tiny: Bundle, tmp_path: Path) -> None:
    """However that ends, and even in a network that never does: it would keep all processors busy for ever."""
    never = endless(tiny, tmp_path / "endless")
    options = json.dumps({"path": str(never.path), "candidates": [ONNX], "threads": 1})
    command = [sys.executable, "-m", trial.__name__, options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin
        assert child.stdout
        try:
            assert json.loads(child.stdout.readline()) == {"runs": "onnx float32"}
            assert child.poll() is None
            child.stdin.close()  # as the system does when the process at the other end is killed
            assert child.wait(timeout=60) == 1
        finally:
            child.kill()
