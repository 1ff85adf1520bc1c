"""Chromium, for tests of what a page in a browser can do. They are skipped where it is not installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium without a window. The name `evil.example` is this machine, as DNS rebinding makes it."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    flags = [
        "--host-resolver-rules=MAP evil.example 127.0.0.1",
        "--disable-features=LocalNetworkAccessChecks",  # newer than many browsers, so the service must not rely on it
        "--disable-dev-shm-usage",
    ]
    if os.getuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to run as root with one
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page, with cookies and storage of its own."""
    context = browser.new_context()
    yield context.new_page()
    context.close()
