from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from rankone.training import progress as module
from rankone.training.progress import progress


def test_in_a_file_a_line_comes_every_so_often(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert list(progress("abcd", [10, 10, 10, 10], "embedding", done=60)) == list("abcd")
    assert capsys.readouterr().out.splitlines() == [
        "embedding: 80 of 100 images, 0.3 images/s, 0:01:00 left",
        "embedding: 100 of 100 images, 0.4 images/s, 0:00:00 left",
    ]


def test_on_a_terminal_a_bar_tells_speed_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(module, "Console", lambda **_: Console(file=screen, force_terminal=True, width=120))
    assert list(progress([1, 2], [500, 500], "embedding")) == [1, 2]
    assert "embedding" in screen.getvalue()
    assert "1,000 of 1,000" in screen.getvalue()
    assert "images/s" in screen.getvalue()


def test_only_one_of_several_processes_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_INTERVAL_S", 0.0)
    assert list(progress("ab", [1, 1], "embedding", shown=False)) == ["a", "b"]
    assert capsys.readouterr().out == ""
    assert list(progress("ab", [1, 1], "embedding")) == ["a", "b"]
    assert len(capsys.readouterr().out.splitlines()) == 2
