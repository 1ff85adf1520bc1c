"""Images/s under constant load, in turns with the bare engine, and the CPU time an image takes.

All servers are under load the whole time and stopped outside their turn, so turns can be short on a machine whose speed
drifts, and no turn measures a queue that fills up or runs empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Thread
from typing import Final, TypeAlias

import httpx
import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.bundles import jpegs, photographs
from benchmarks.serving.arrivals import Schedule
from benchmarks.serving.contenders import HOST, LONG_S, Contender, contenders_of
from benchmarks.serving.load import Sample, closed_loop
from benchmarks.timing import console, table
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine
from rankone.model.engine.base import Images

BATCH: Final = 16
_SINGLES: Final = "rankone, one image a request"
_RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Turn:
    """The work done in one turn."""

    num_images: int
    duration_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Images a second."""
        return self.num_images / self.duration_s


Turns: TypeAlias = Mapping[str, list[Turn]]
"""By contender, the same number for each."""
Play: TypeAlias = Callable[[], Turn]


def bare(engine: Engine, images: Images, duration_s: float) -> Turn:
    """The engine by itself, in this process, one run of the batch after another."""
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < duration_s:
        engine.run(images)
        count += len(images)
    return Turn(count, time.perf_counter() - started, time.process_time() - cpu)


def saturation(engine: Engine, bundle: Bundle, threads: int, schedule: Schedule) -> float:
    """Prints a table for single images and one for requests of 16; returns the service's images/s on single ones."""
    turn_s, files = schedule.turn_s, jpegs(BATCH)
    plays: dict[str, Play] = {
        f"engine alone, batches of {batch}": partial(bare, engine, photographs(bundle, batch), turn_s)
        for batch in (1, 4)
    }
    with contenders_of(bundle, threads, LONG_S) as contenders, ExitStack() as stack:
        singles = {}
        for name, contender in contenders.items():
            requests = [contender.single(file, timeout_s=LONG_S) for file in files]
            loaded = _loaded(contender, requests, BATCH, turn_s)
            singles[f"{name}, one image a request"] = stack.enter_context(loaded)
        turns = _in_turns(plays | singles, schedule.turns)
    _print(turns)
    with contenders_of(bundle, threads, LONG_S, with_peer=False) as contenders:
        contender = contenders["rankone"]
        with _loaded(contender, [contender.batch(files)], 2, turn_s, by_image=True) as whole:
            _print(_in_turns(plays | {f"rankone, {BATCH} images a request": whole}, schedule.turns))
    return _total(turns[_SINGLES]).per_s


def _in_turns(plays: Mapping[str, Play], count: int) -> Turns:
    """`count` turns of each, after one that does not count, in which queues fill up."""
    for play in plays.values():
        play()
    turns: dict[str, list[Turn]] = {name: [] for name in plays}
    for number in range(count):
        for name in list(plays)[:: -1 if number % 2 else 1]:
            turns[name].append(plays[name]())
    return turns


@contextmanager
def _loaded(
    contender: Contender, requests: Sequence[bytes], concurrency: int, turn_s: float, *, by_image: bool = False
) -> Iterator[Play]:
    """The turns of a server that always has `concurrency` open requests.

    Its work is counted by answers, or `by_image` from the service's own metrics: a turn ends within a large request.
    """
    sample = Sample()
    load = closed_loop(HOST, contender.port, requests, concurrency, float("inf"), sample)
    Thread(target=uvloop.run, args=(load,), daemon=True).start()
    with httpx.Client(trust_env=False, base_url=f"http://{HOST}:{contender.port}") as client:
        count = partial(_num_run, client) if by_image else lambda: len(sample.seconds)
        yield partial(_turn, contender, count, turn_s)
    # 0: a keep-alive that timed out while the server was stopped
    if faults := {status: count for status, count in sample.statuses.items() if status not in (0, 200)}:
        raise RuntimeError(f"{contender.name} answered with {faults}")


def _turn(contender: Contender, count: Callable[[], int], duration_s: float) -> Turn:
    with contender.awake():
        before, started, cpu_s = count(), time.perf_counter(), contender.cpu_s()
        time.sleep(duration_s)
        return Turn(count() - before, time.perf_counter() - started, contender.cpu_s() - cpu_s)


def _num_run(client: httpx.Client) -> int:
    """Images that the service has embedded, by its own counter."""
    lines = client.get("/metrics").text.splitlines()
    return round(sum(float(line.split()[1]) for line in lines if line.startswith("rankone_images_total")))


def _print(turns: Turns) -> None:
    totals = {name: _total(played) for name, played in turns.items()}
    rival = max((name for name in turns if name.startswith("engine")), key=lambda name: totals[name].per_s)
    title = f"saturated, {len(turns[rival])} turns each"
    rows = table(title, "", "images/s", f"of {rival}", "95 % interval", "CPU ms an image")
    for name, total in totals.items():
        low, high = _interval(turns[name], turns[rival])
        part, cpu_ms = f"{total.per_s / totals[rival].per_s:.1%}", f"{1e3 * total.cpu_s / total.num_images:.1f}"
        rows.add_row(name, f"{total.per_s:.3g}", part, f"{low:.1%} - {high:.1%}", cpu_ms)
    console.print(rows)


def _total(turns: Sequence[Turn]) -> Turn:
    num_images, duration_s = sum(turn.num_images for turn in turns), sum(turn.duration_s for turn in turns)
    return Turn(num_images, duration_s, sum(turn.cpu_s for turn in turns))


def _interval(turns: Sequence[Turn], of: Sequence[Turn]) -> tuple[float, float]:
    """95 % interval of the ratio of images/s, by bootstrap over pairs of turns, as both saw the same machine."""
    drawn = np.random.default_rng(0).integers(len(turns), size=(_RESAMPLES, len(turns)))
    low, high = np.percentile(_resampled(turns, drawn) / _resampled(of, drawn), (2.5, 97.5))
    return float(low), float(high)


def _resampled(turns: Sequence[Turn], drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Images/s of every sample of turns."""
    played = np.array([(turn.num_images, turn.duration_s) for turn in turns])[drawn].sum(1)
    per_s: npt.NDArray[np.float64] = played[:, 0] / played[:, 1]
    return per_s
