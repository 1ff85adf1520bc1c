"""Chromium, for tests of what a page in a browser can do. They are skipped where it is not installed.

Playwright's asynchronous interface, on the event loop of all tests: the other one keeps a loop of its own running, beside
which no asynchronous test can run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
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
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page, with cookies and storage of its own."""
    context = await browser.new_context()
    context.set_default_timeout(120_000)  # milliseconds; beside other tests, a browser is slow
    yield await context.new_page()
    await context.close()
