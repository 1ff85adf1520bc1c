"""Bundles that never load: a network without an end, and a pipe that nobody writes to. What works is served."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.bundles import tiny_bundle
from rankone.model.bundle import MANIFEST
from rankone.service.bundles import Models
from tests.pages import Shell
from tests.service.hangs import endless
from tests.service.test_bundles import served


def test_a_service_whose_only_bundle_never_loads_ends_and_says_why(tmp_path: Path) -> None:
    """In a process of its own: the loop cannot be stopped."""
    good = tiny_bundle(tmp_path / "good")
    endless(good, tmp_path / "endless")
    ended = Shell(tmp_path).attempt("rankone serve --bundle endless --load-timeout-s 1")
    assert ended.returncode != 0
    assert "endless did not load within 1 s (RANKONE_LOAD_TIMEOUT_S)" in ended.stderr


@pytest.mark.anyio
async def test_a_bundle_that_is_late_is_refused_until_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    for version in ("2", "1"):
        tiny_bundle(folder / f"v{version}", version)
    async with served(folder) as (app, http):
        hurried = app.state.settings.model_copy(update={"load_timeout_s": 1e-6})
        app.state.models = Models(hurried, app.state.service, app.state.metrics, app.state.indexes)
        for sentence in ("v2 did not load within 1e-06 s", "v2 took too long to load before; start the service again"):
            refused = await http.post("/models/tiny/2/load")
            assert (refused.status_code, sentence in refused.json()["detail"]) == (409, True)
        assert (await http.get("/info")).json()["version"] == "1"


@pytest.mark.anyio
async def test_a_manifest_that_is_a_pipe_is_listed_as_broken(tmp_path: Path) -> None:
    """Nobody writes to it, so whoever opens it to read would wait for ever."""
    tiny_bundle(tmp_path / "bundles" / "good")
    (tmp_path / "bundles" / "pipe").mkdir()
    os.mkfifo(tmp_path / "bundles" / "pipe" / MANIFEST)
    async with served(tmp_path / "bundles") as (_, http):
        models = (await http.get("/models")).json()["models"]
        assert [entry["state"] for entry in models] == ["served", "broken"]
        assert "it is not a regular file" in models[1]["detail"]
