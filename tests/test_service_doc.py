"""docs/service.md: its commands run as they are printed, and the settings that it names have the defaults that it says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import httpx
import pytest

from rankone.model.bundle import Bundle
from rankone.service.auth.keys import load_keys
from rankone.service.settings import Settings
from tests.pages import ROOT, Shell, commands

PAGE = "docs/service.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
KEYS, MODELS = commands(PAGE)


@pytest.fixture
def shell(tiny: Bundle, tmp_path: Path, here: bool) -> Shell:
    shutil.copytree(tiny.path, tmp_path / "bundles" / "mine")
    return Shell(tmp_path, here=here)


def test_keys_are_made_listed_and_revoked_as_the_page_says(shell: Shell) -> None:
    add_joe, add_loader, list_keys, revoke, serve = KEYS
    joe, loader = shell.run(add_joe).strip(), shell.run(add_loader).strip()
    assert "loader" in shell.run(list_keys)
    shell.run(revoke)
    (key,) = load_keys(shell.folder / "keys.json")
    assert (key.scopes, key.requests_per_minute) == (frozenset({"read", "write"}), 600)
    with shell.serving(serve):
        assert httpx.get(f"{shell.url}/healthz").status_code == 200
        for secret, status in ((joe, 401), (loader, 200)):
            answer = httpx.get(f"{shell.url}/info", headers={"Authorization": f"Bearer {secret}"})
            assert answer.status_code == status
        denied = httpx.post(f"{shell.url}/models/a/1/load", headers={"Authorization": f"Bearer {loader}"})
        assert denied.status_code == 403


def test_models_are_listed_and_loaded_as_the_page_says(shell: Shell, tiny: Bundle) -> None:
    listing, load = MODELS
    with shell.serving("rankone serve --bundles bundles"):
        (listed,) = json.loads(shell.run(listing))["models"]
        assert listed["state"] == "served"
        name = f"{tiny.manifest.name}/{tiny.manifest.version}"
        loaded = json.loads(shell.run(load.replace("photos-cbp-run/2", name)))
        assert loaded["fingerprint"] == tiny.fingerprint
        unknown = httpx.post(f"{shell.url}/models/photos-cbp-run/2/load")
        assert unknown.status_code == 404


def test_the_settings_exist_and_have_these_defaults() -> None:
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+|workers)`", TEXT))
    assert len(named) > 10
    assert named <= set(Settings.model_fields)
    flags = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)", TEXT)} - {"rate"}
    assert flags <= set(Settings.model_fields)
    for name, default in re.findall(r"`([a-z_]+)` \((\d+)\)", TEXT):
        assert Settings().model_dump()[name] == float(default), name
    assert (Settings().batch_policy.max_batch, Settings(device="cuda").batch_policy.max_batch) == (4, 16)


def test_the_page_is_short() -> None:
    assert len(TEXT.split()) <= 620
