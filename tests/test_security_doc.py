"""docs/security.md: its settings exist, with these defaults, and its limits are those of the code."""

from __future__ import annotations

import re

from rankone.service.auth.middleware import _FAILURES_PER_MINUTE
from rankone.service.settings import Settings
from tests.pages import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_the_settings_exist_and_read_what_the_page_shows() -> None:
    flags = {flag.replace("-", "_") for flag in re.findall(r"`--([a-z-]+)", TEXT)}
    assert {"allowed_hosts", "cors_origins", "own_keys", "load_timeout_s"} <= flags <= set(Settings.model_fields)
    (shown,) = re.findall(r"`--cors-origins ([^`]*)`", TEXT)
    assert len(Settings.model_validate({"cors_origins": shown}).cors_origins) == 2
    assert f"({Settings().load_timeout_s:.0f})" in TEXT
    assert f"more than {_FAILURES_PER_MINUTE} requests a minute" in TEXT


def test_the_page_is_short() -> None:
    assert len(TEXT.split()) <= 450
