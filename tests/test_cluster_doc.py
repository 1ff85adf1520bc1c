"""docs/cluster.md: its commands are what the code takes, and its settings and names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rankone.__main__ import run
from rankone.cli.index import index
from rankone.service.cluster.application import _RAY_DECIDES, PROXY, to_serve
from rankone.service.job.shard import file_of, rejected_of
from rankone.service.settings import Settings
from tests.pages import ROOT, commands

PAGE = "docs/cluster.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
LINES = [line for block in commands(PAGE) for line in block]
OURS = [shlex.split(line)[1:] for line in LINES if line.startswith("rankone ")]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the commands of the page ask for."""
    calls: list[dict[str, Any]] = []

    def deploy(settings: Settings, **options: Any) -> None:
        to_serve(settings, **options)
        calls.append({"settings": settings, **options})

    def embed(places: tuple[str, ...], out: Path, dim: int | None, job: Any) -> None:
        calls.append({"places": places, "out": out, "job": job})

    monkeypatch.setattr("rankone.service.cluster.deploy.deploy", deploy)
    monkeypatch.setattr("rankone.cli.query.job_embed", embed)
    return calls


def test_the_commands_do_what_the_page_says(called: list[dict[str, Any]]) -> None:
    for words in OURS:
        assert run(words[0], words[1:]) == 0
    served, here, elsewhere = called
    assert (served["replicas"], served["indexes"]) == (4, False)
    assert served["settings"].bundle == Path("/srv/bundles/mine")
    assert (here["places"], here["out"], here["job"].cluster) == (("photos",), Path("embedded"), None)
    assert (elsewhere["places"], elsewhere["job"].cluster) == (("s3://my-photos/2026",), "10.0.0.1:6379")


def test_the_shards_are_imported_by_a_command_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    (loop,) = [line for line in LINES if "index import" in line]
    words = shlex.split(loop.partition("; do ")[2].removesuffix("; done").replace('"$part"', "part.parquet"))
    imported: list[tuple[Any, ...]] = []

    def load_items(*arguments: Any) -> int:
        imported.append(arguments)
        return 0

    monkeypatch.setattr("rankone.cli.filling.load_items", load_items)
    assert words[:3] == ["rankone", "index", "import"]
    index(words[2:])
    assert imported[0][:2] == (Path("part.parquet"), Path("indexes/default.sqlite"))


def test_ray_is_started_with_haproxy_and_without_reports_on_every_machine() -> None:
    starts = [line for line in LINES if " ray start" in line]
    assert len(starts) == 2
    for line in starts:
        assert f"{PROXY}=1 " in line
        assert "RAY_USAGE_STATS_ENABLED=0 " in line


def test_the_names_are_those_of_the_code() -> None:
    refused = set(re.findall(r"`--([a-z-]+)`", TEXT.partition("are refused")[0].rpartition("\n- ")[2]))
    assert {name.replace("-", "_") for name in refused} == set(_RAY_DECIDES)
    for file in (file_of, rejected_of):
        assert f"`{file(Path(), 0).name}`" in TEXT
    assert (ROOT / "deploy" / "ray" / "serve.yaml").exists()
    assert len(TEXT.split()) <= 650
