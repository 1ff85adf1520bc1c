"""`make docs` builds the site, whole, and no page of it asks another host for anything."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rankone.__main__ import COMMANDS
from rankone.service.settings import Settings
from tests.pages import ROOT

_LOADED = re.compile(r"<(?:script|img|link|source|iframe)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a copy of the pages, so that nothing is left in the repository."""
    copy = tmp_path_factory.mktemp("site")
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "docs", copy / "docs")
    for name in ("tests", "docker", "deploy", ".env.example"):
        (copy / name).symlink_to(ROOT / name)
    ended = subprocess.run(
        [sys.executable, copy / "docs" / "site" / "build.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return copy / "build" / "site"


@pytest.mark.slow
def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        if page.parent.name != "site":
            assert (site / page.relative_to(ROOT).with_suffix(".html")).exists(), page


@pytest.mark.slow
def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = _LOADED.findall(page.read_text(encoding="utf-8"))
        assert loaded
        assert not [address for address in loaded if "//" in address], page


@pytest.mark.slow
def test_the_reference_names_every_command_and_setting(site: Path) -> None:
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f"usage: rankone {name} " in commands for name in COMMANDS)
    settings = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    assert all(f"RANKONE_{name.upper()}" in settings for name in Settings.model_fields)


def test_a_link_to_nothing_is_an_error_and_one_to_a_folder_is_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    build = importlib.import_module("build")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.touch()
    page.write_text("[other](other.md#part), [folder](.), ![picture](https://example.org/a.png)")
    staged = {page: tmp_path / "pages" / "page.md", other: tmp_path / "pages" / "deep" / "other.md"}
    text = build.relinked(page, staged)
    assert text == "[other](deep/other.md#part), folder, ![picture](https://example.org/a.png)"
    page.write_text("[gone](gone.md)")
    with pytest.raises(FileNotFoundError, match=r"page\.md links to gone\.md"):
        build.relinked(page, staged)
