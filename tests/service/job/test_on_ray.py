"""What a job on Ray decides without a cluster: whether an actor fits, and what is told while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankone.service.job import on_ray
from rankone.service.job.embedder import JobFailed
from rankone.service.job.plan import plan_of
from rankone.service.job.shard import file_of
from rankone.service.job.sources import JobImage
from rankone.service.settings import Settings


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


def test_an_actor_that_no_machine_can_hold_is_refused() -> None:
    """Ray would wait for such a machine for ever."""
    on_ray._check_fits(Settings(threads=2), [node(1), node(2)])
    on_ray._check_fits(Settings(threads=1, device="cuda"), [node(4), node(1, 1)])
    for settings, nodes, sentence in (
        (Settings(threads=2), [node(1), node(8, alive=False)], "has 2 processors and 0 GPUs .* have: 1 and 0"),
        (
            Settings(threads=2, device="cuda"),
            [node(4), node(1, 1)],
            "2 processors and 1 GPUs .* have: 4 and 0, 1 and 1",
        ),
        (Settings(threads=1), [], "have: none"),
    ):
        with pytest.raises(JobFailed, match=sentence):
            on_ray._check_fits(settings, nodes)


def test_shards_are_told_once_as_their_files_appear(tmp_path: Path) -> None:
    plan = plan_of(
        [JobImage(f"{n}", f"/{n}") for n in range(5)], fingerprint="f", dim=2, thumbnails=False, shard_size=2
    )
    file_of(tmp_path, 0).touch()  # was there before
    appear, told = iter([[1], [], [2]]), list[int]()

    def ended() -> bool:
        for number in (found := next(appear)):
            file_of(tmp_path, number).touch()
        return found == [2]

    on_ray._watch(tmp_path, plan, [1, 2], told.append, ended)
    assert told == [2, 1]
