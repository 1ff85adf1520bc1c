"""Which engine is the fastest on this machine: a trial of a few seconds, in a process of its own.

A library can end the process that it runs in, for instance by an instruction that the processor does not have. Here that
ends the trial alone, and nothing else has to be running by that engine yet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from rankone.model.bundle import Bundle, read_manifest
from rankone.model.engine import unchecked_engine
from rankone.model.engine.base import Engine, EngineName, Images, Options, Precision, reason_of
from rankone.model.engine.check import probe

Candidate = tuple[EngineName, Precision]

_MODULE: Final = "rankone.model.engine.trial"
_MARGIN: Final = 0.9
"""The part of the first candidate's time that another must stay under: less is noise, and would change from start to start."""
_LATER: Final = 1.2
"""How much later than the first another may end by the clock. More is an engine that leaves its threads idle."""
_ROUNDS_S: Final = 2.0
_LIMIT_S: Final = 300.0
"""For the whole trial, which takes a few seconds on a machine that has nothing else to do."""


@dataclass(frozen=True)
class Times:
    """The least that one image took, in seconds, over the rounds of a trial."""

    processor_s: float
    """Of all threads together. Other work on the machine hardly changes it, and can double the time by the clock."""
    clock_s: float


@dataclass(frozen=True)
class Trial:
    """The times of the candidates, and why others have none."""

    times: Mapping[Candidate, Times]
    faults: tuple[str, ...] = ()
    crash: str | None = None
    """How the process ended, if it did not by itself. Then there are no times."""

    @property
    def ranking(self) -> list[Candidate]:
        """The fastest candidate first. Only what takes at least 10 % less time than the first of the trial is before that."""
        if not self.times:
            return []
        first, *others = self.times
        most_s, latest_s = _MARGIN * self.times[first].processor_s, _LATER * self.times[first].clock_s
        others.sort(key=lambda one: self.times[one].processor_s)
        faster = [one for one in others if self.times[one].processor_s < most_s and self.times[one].clock_s <= latest_s]
        return [*faster, first, *(one for one in others if one not in faster)]

    def __str__(self) -> str:
        """The times, as in a log."""
        each = ", ".join(f"{_name(one)} {times.processor_s * 1e3:.1f} ms" for one, times in self.times.items())
        return f"an image takes {each} of processor time"


def try_out(bundle: Bundle, candidates: Sequence[Candidate], threads: int) -> Trial:
    """Times candidates on one image, in another process; blocks for some seconds.

    Args:
        bundle: whose network is run on the CPU.
        candidates: engines and their precisions. The first is preferred.
        threads: of the CPU, of each engine.
    """
    options = json.dumps({"path": str(bundle.path), "candidates": candidates, "threads": threads})
    theirs, ours = os.pipe()  # ours is closed when this process ends, however it does
    try:
        ended = subprocess.run(  # noqa: S603
            [sys.executable, "-m", _MODULE, options],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial({}, crash=f"the trial did not end within {_LIMIT_S:g} s")
    finally:
        os.close(theirs)
        os.close(ours)
    return _read(ended.stdout, ended.stderr, ended.returncode, candidates)


def _read(said: str, complaints: str, status: int, candidates: Sequence[Candidate]) -> Trial:
    lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines() if line.endswith("}")]
    faults = tuple(line["fault"] for line in lines if "fault" in line)
    if status == 0:
        return Trial({candidates[number]: Times(*took) for number, *took in lines[-1]["times"]}, faults)
    running = next((line["runs"] for line in reversed(lines) if "runs" in line), "no engine yet")
    cause = signal.strsignal(-status) if status < 0 else (complaints.strip().splitlines() or ["no message"])[-1]
    return Trial({}, faults, f"the trial of {running} failed: {cause}")


def main() -> None:
    """The trial's own process: says on its standard output what it does, a line of JSON each, and at last the times."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is none of that
    options = json.loads(sys.argv[1])
    path = Path(options["path"])
    manifest, fingerprint = read_manifest(path)
    bundle = Bundle(path=path, manifest=manifest, fingerprint=fingerprint)  # its files have been checked by the parent
    images = probe(manifest.preprocessing.size)
    engines = dict[int, Engine]()
    for number, (name, precision) in enumerate(cast("list[Candidate]", options["candidates"])):
        print(json.dumps({"runs": _name((name, precision))}), file=said)
        try:
            engine = unchecked_engine(
                bundle, name, Options(device="cpu", threads=options["threads"], precision=precision)
            )
            engine.run(images)  # more than one: kernels differ by the size of a batch
        except Exception as error:
            print(json.dumps({"fault": f"{_name((name, precision))}: {reason_of(error)}"}), file=said)
            continue
        engines[number] = engine
    print(json.dumps({"runs": "all in turns"}), file=said)
    best = best_times(engines, images[:1])
    print(json.dumps({"times": [(number, took.processor_s, took.clock_s) for number, took in best.items()]}), file=said)


def _end_with_parent() -> None:
    """Ends this process when its standard input does: a network without an end would run on by itself."""
    os.read(0, 1)
    os._exit(1)


def best_times(
    engines: Mapping[int, Engine],
    image: Images,
    clock: Callable[[], float] = time.perf_counter,
    processor: Callable[[], float] = time.process_time,
) -> dict[int, Times]:
    """What each engine takes at least. They take turns for two seconds, or for one turn each where that is longer."""
    rounds: dict[int, list[tuple[float, float]]] = {number: [] for number in engines}
    ends = clock() + _ROUNDS_S
    while engines:
        for number, engine in engines.items():
            started_s, used_s = clock(), processor()
            engine.run(image)
            rounds[number].append((processor() - used_s, clock() - started_s))
        if clock() >= ends:
            break
    return {number: Times(*map(min, zip(*took, strict=True))) for number, took in rounds.items()}


def _name(candidate: Candidate) -> str:
    return " ".join(candidate)


if __name__ == "__main__":
    main()
