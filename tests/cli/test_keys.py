from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankone.__main__ import run
from rankone.service.auth.keys import load_keys


def test_a_key_is_made_listed_and_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("RANKONE_KEYS", str(path))
    assert run("keys", ["add", "joe", "--scope", "read", "write", "--rate", "60"]) == 0
    out, err = capsys.readouterr()
    secret = out.strip()
    assert secret.startswith("r1_")
    assert "it is not shown again" in err
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert run("keys", ["add", "--scope", "admin"]) == 0
    capsys.readouterr()
    assert run("keys", ["list"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("\t")[:3] == ["joe", "read,write", "60/min"]
    assert second.split("\t")[1:3] == ["admin", "-"]
    assert run("keys", ["revoke", "joe"]) == 0
    assert [key.scopes for key in load_keys(path)] == [{"admin"}]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["add", "joe"], "has a key 'joe' already"),
        (["revoke", "jane"], "has no key 'jane'; it has: joe"),
        (["list", "--file", "missing.json"], "make one with `rankone keys add`"),
        (["list", "--file", "broken.json"], "is not a key file"),
    ],
)
def test_what_cannot_be_done_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANKONE_KEYS", "keys.json")
    Path("broken.json").write_text(json.dumps({"keys": [{"name": "x"}]}))
    run("keys", ["add", "joe"])
    assert run("keys", arguments) == 2
    assert sentence in capsys.readouterr().err


def test_names_are_printed_without_control_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of keys can be written by hand, or by somebody else."""
    monkeypatch.setenv("RANKONE_KEYS", str(tmp_path / "keys.json"))
    assert run("keys", ["add", "a\x1b[2Jb"]) == 2
    assert "so they hold no control characters" in capsys.readouterr().err
    run("keys", ["add", "joe"])
    text = (tmp_path / "keys.json").read_text()
    (tmp_path / "keys.json").write_text(text.replace('"joe"', r'"\u001b[2J\r\n\u202ejoe\u00fc"'))
    capsys.readouterr()
    assert run("keys", ["list"]) == 0
    assert capsys.readouterr().out.startswith("\\x1b[2J\\r\\n\\u202ejoe\u00fc\tread\t")
    assert run("keys", ["revoke", "x"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_without_a_file_it_asks_for_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("RANKONE_KEYS", raising=False)
    assert run("keys", ["list"]) == 2
    assert "--file FILE, or RANKONE_KEYS" in capsys.readouterr().err
