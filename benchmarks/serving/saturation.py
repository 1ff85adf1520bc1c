"""Images a second when there is always more to do, in turns with the bare engine, and the processor time that each takes.

All that are compared are under load all along and stopped out of their turn, so that turns can be as short as the machine is
fickle and nobody is measured while a queue fills up or runs empty.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Final, TypeAlias

import httpx
import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.serving.contenders import HOST, LONG_S, Contender, contenders_of
from benchmarks.serving.load import Sample, closed_loop
from benchmarks.serving.patience import Patience
from benchmarks.subject import jpegs, photographs
from benchmarks.timing import console, table
from rankone.model.bundle import Bundle
from rankone.model.engine import Engine
from rankone.model.engine.base import Images

BATCH: Final = 16
_ENGINE_BATCHES: Final = (1, 4)
_SINGLES: Final = "one image a request"
_RESAMPLED: Final = 2000


@dataclass(frozen=True)
class Turn:
    """What was done in one turn."""

    num_images: int
    duration_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Images a second."""
        return self.num_images / self.duration_s


Turns: TypeAlias = Mapping[str, list[Turn]]
"""Of each that is compared, by name, as many as of every other."""
Play: TypeAlias = Callable[[], Turn]


def bare(engine: Engine, images: Images, duration_s: float) -> Turn:
    """What the engine does by itself with this batch, one run after another, in this process."""
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < duration_s:
        engine.run(images)
        count += len(images)
    return Turn(count, time.perf_counter() - started, time.process_time() - cpu)


def saturation(engine: Engine, bundle: Bundle, threads: int, patience: Patience) -> float:
    """Prints the tables; returns the images/s of the service on single ones."""
    plays = {
        f"engine alone, batches of {batch}": functools.partial(
            bare, engine, photographs(bundle, batch), patience.turn_s
        )
        for batch in _ENGINE_BATCHES
    }
    files = jpegs(BATCH)
    with contenders_of(bundle, threads, LONG_S) as contenders, ExitStack() as stack:
        singles = {
            f"{name}, {_SINGLES}": stack.enter_context(
                _loaded(contender, [contender.single(file, timeout_s=LONG_S) for file in files], BATCH, patience.turn_s)
            )
            for name, contender in contenders.items()
        }
        turns = _in_turns(plays | singles, patience.turns)
    _print(turns)
    with contenders_of(bundle, threads, LONG_S, with_peer=False) as contenders, ExitStack() as stack:
        contender = contenders["rankone"]
        whole = stack.enter_context(_loaded(contender, [contender.batch(files)], 2, patience.turn_s, by_image=True))
        _print(_in_turns(plays | {f"rankone, {BATCH} images a request": whole}, patience.turns))
    return _total(turns[f"rankone, {_SINGLES}"]).per_s


def _in_turns(plays: Mapping[str, Play], count: int) -> Turns:
    """`count` of each; one before them, in which queues fill up, does not count."""
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
    """Turns of a server that has `concurrency` requests under way all along, until it ends.

    What it has done is counted by its answers, or by what the service says of itself, as it goes to and fro between
    requests of many images.
    """
    sample = Sample()
    load = closed_loop(HOST, contender.port, requests, concurrency, float("inf"), sample)
    Thread(target=uvloop.run, args=(load,), daemon=True).start()
    with httpx.Client(trust_env=False, base_url=f"http://{HOST}:{contender.port}") as client:
        count = functools.partial(_num_run, client) if by_image else lambda: len(sample.seconds)
        yield functools.partial(_turn, contender, count, turn_s)
    # 0: a connection whose keep-alive was over while its server was stopped
    if faults := {status: count for status, count in sample.statuses.items() if status not in (0, 200)}:
        raise RuntimeError(f"{contender.name} answered with {faults}")


def _turn(contender: Contender, count: Callable[[], int], duration_s: float) -> Turn:
    with contender.awake():
        before, started, cpu_s = count(), time.perf_counter(), contender.cpu_s()
        time.sleep(duration_s)
        return Turn(count() - before, time.perf_counter() - started, contender.cpu_s() - cpu_s)


def _num_run(client: httpx.Client) -> int:
    """Images that the service has run, by its own count: of a request of many, some."""
    lines = client.get("/metrics").text.splitlines()
    return round(sum(float(line.split()[1]) for line in lines if line.startswith("rankone_images_total")))


def _print(turns: Turns) -> None:
    totals = {name: _total(played) for name, played in turns.items()}
    rival = max((name for name in turns if name.startswith("engine")), key=lambda name: totals[name].per_s)
    title = f"saturated, {len(turns[rival])} turns each"
    rows = table(title, "", "images/s", f"of {rival}", "95 % interval", "CPU ms an image")
    for name, total in totals.items():
        low, high = _interval(turns[name], turns[rival])
        part = f"{total.per_s / totals[rival].per_s:.1%}"
        rows.add_row(
            name, f"{total.per_s:.3g}", part, f"{low:.1%} - {high:.1%}", f"{1e3 * total.cpu_s / total.num_images:.1f}"
        )
    console.print(rows)


def _total(turns: Sequence[Turn]) -> Turn:
    return Turn(
        sum(turn.num_images for turn in turns),
        sum(turn.duration_s for turn in turns),
        sum(turn.cpu_s for turn in turns),
    )


def _interval(turns: Sequence[Turn], of: Sequence[Turn]) -> tuple[float, float]:
    """Of the ratio of the two, by bootstrap over the rounds: both of a round saw the same machine."""
    drawn = np.random.default_rng(0).integers(len(turns), size=(_RESAMPLED, len(turns)))
    ratios = _resampled(turns, drawn) / _resampled(of, drawn)
    low, high = np.percentile(ratios, (2.5, 97.5))
    return float(low), float(high)


def _resampled(turns: Sequence[Turn], drawn: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Images/s of every sample of rounds."""
    played = np.array([(turn.num_images, turn.duration_s) for turn in turns])[drawn].sum(1)
    per_s: npt.NDArray[np.float64] = played[:, 0] / played[:, 1]
    return per_s
