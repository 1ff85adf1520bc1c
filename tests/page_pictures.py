"""Makes docs/images/page-*.png: `python -m tests.page_pictures` shows the page of the demo's service in Chromium.

Trains the demo's bundle first where it is not there yet. With an address, it shows the service that runs there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.async_api import Browser, Page, ViewportSize, async_playwright

from rankone.cli import demo
from rankone.training.recipe import load_recipe
from tests.browser import CHROMIUM
from tests.pages import ROOT

FOLDER: Final = ROOT / "docs" / "images"
PORT: Final = 8019
NEW: Final = demo.DATA / "photos" / "new"
QUERY: Final = NEW / "coins" / "00.png"
DESKTOP: Final = ViewportSize(width=1160, height=740)


async def take(url: str, folder: Path) -> None:
    """Photographs the page: a search, more and less like this in the dark, evidence, and the map."""
    flags = ["--no-sandbox"] if os.getuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = await opened(browser, url, DESKTOP)
        await search(page, QUERY)
        await save(page, folder / "page-search.png")
        page = await opened(browser, url, DESKTOP, dark=True)
        await search(page, NEW / "moon" / "00.png")
        await page.locator(".picture").first.click()
        await page.get_by_text("Less like this").last.click()
        await page.locator(".chip").nth(1).wait_for()
        await save(page, folder / "page-examples.png")
        page = await opened(browser, url, DESKTOP)
        await search(page, QUERY)
        await page.get_by_role("button", name="Where it lies: coins/").first.click()
        await page.locator("#evidence img").last.wait_for()
        await save(page, folder / "page-evidence.png")
        page = await opened(browser, url, DESKTOP)
        await page.get_by_role("button", name="Map", exact=True).click()
        await page.get_by_label("Colour by").select_option("label")
        await save(page, folder / "page-map.png")
        await browser.close()


async def opened(browser: Browser, url: str, size: ViewportSize, *, dark: bool = False) -> Page:
    page = await browser.new_page(viewport=size, color_scheme="dark" if dark else "light")
    await page.goto(url)
    await page.locator("#status dd").first.wait_for()
    return page


async def search(page: Page, *paths: Path) -> None:
    await page.locator("#search [data-files]").set_input_files([str(path) for path in paths])
    await page.locator(".found .card").first.wait_for()


async def save(page: Page, path: Path) -> None:
    """In 192 colours, which is a quarter of the bytes."""
    await page.wait_for_load_state("networkidle")
    await page.evaluate("scrollTo(0, 0)")
    image = Image.open(BytesIO(await page.screenshot())).convert("RGB")
    image.quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


def main(url: str | None = None, folder: str | None = None) -> None:
    with ExitStack() as stack:
        if url is None:
            recipe = load_recipe("demo")
            home = demo.RUNS / f"demo-{Path(recipe.weights).stem}"
            bundle = demo.prepare(home, recipe)
            client = stack.enter_context(demo.served(bundle, home, PORT))
            demo.tour(client)
            demo.draw_map(bundle, home)
            url = client.url
        asyncio.run(take(url, FOLDER if folder is None else Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
