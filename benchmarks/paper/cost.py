"""What a normalization or a head costs: FLOPs an image, and milliseconds a batch beside its rivals in the same run."""

from __future__ import annotations

from pydantic import BaseModel

from benchmarks.flops import count_flops
from benchmarks.normalization import CHANNELS, LOCATIONS, contenders
from benchmarks.timing import compare


class Cost(BaseModel):
    """The cost of one contender, forward, in float32."""

    contender: str
    flops: int
    """Of one image; products and decompositions, see `benchmarks.flops`."""
    batch: int
    locations: int
    channels: int
    low_ms: float
    median_ms: float
    high_ms: float
    """Quartiles of the time of a batch."""
    rounds: int
    device: str
    machine: str


def costs(names: list[str], batch: int, rounds: int, device: str, machine: str) -> list[Cost]:
    """The named contenders, timed in turn."""
    alone, together = contenders(1, device), contenders(batch, device)
    timings = compare({name: together[name] for name in names}, rounds=rounds, warm_up=1, device=device)
    return [
        Cost(
            contender=name,
            flops=count_flops(alone[name]),
            batch=batch,
            locations=LOCATIONS,
            channels=CHANNELS,
            low_ms=1e3 * timing.low,
            median_ms=1e3 * timing.median,
            high_ms=1e3 * timing.high,
            rounds=rounds,
            device=device,
            machine=machine,
        )
        for name, timing in timings.items()
    ]
