from __future__ import annotations

import json

import pytest

from rankone.__main__ import run
from tests.pages import commands


def test_the_table_and_the_objects(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backbones", ["vgg16", "timm/test_vit", "--size", "64", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["channels"], first["stride"], first["at_hand"]) == ("vgg16", 512, 16, False)
    assert second["parameters"] > 0
    assert min(first["ms"], second["ms"], second["gflop"]) > 0
    assert run("backbones", ["timm/test_vit", "--size", "64", "--no-time"]) == 0
    assert "timm/test_vit" in capsys.readouterr().out


def test_an_unknown_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("backbones", ["vgg99"]) == 2
    assert "unknown backbone 'vgg99'" in capsys.readouterr().err


def test_the_command_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    ((line,),) = commands("docs/backbones.md")
    name, *arguments = line.removeprefix("rankone ").split()
    assert run(name, arguments) == 0
    assert "swin_t" in capsys.readouterr().out
