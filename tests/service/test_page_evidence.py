"""The page shows where the evidence lies, in Chromium against the real service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Page, expect

from rankone.client import Client
from rankone.model.bundle import Bundle
from tests.service.test_page_browser import choose, payload, violations
from tests.services import Process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def process(bundle: Bundle, images: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service with classes and two items; the first is the image that is searched with."""
    process = Process(bundle.path, tmp_path_factory.mktemp("evidence"))
    with process.ready() as client:
        client.add(images[:2], ["same", "other"])
    yield process
    process.close()


@pytest.fixture
async def shown(page: Page, process: Process, images: list[bytes]) -> AsyncIterator[Page]:
    faults = list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    await page.goto(process.url)
    await expect(page.locator("#status")).to_contain_text("default")
    await choose(page, payload("a.png", images[0]))
    await expect(page.locator(".found .card")).to_have_count(2)
    yield page
    assert faults == []


async def test_a_class_is_shown_over_the_image_by_keyboard_alone(shown: Page) -> None:
    """The dialog is named, says in words what it shows, and gives the focus back."""
    button = shown.locator(".classes button").first
    await button.focus()
    await shown.keyboard.press("Enter")
    dialog = shown.locator("#evidence")
    await expect(dialog.locator("figure")).to_have_count(1)
    await expect(dialog.locator("img")).not_to_have_js_property("naturalWidth", 0)
    await expect(dialog.locator("img")).to_have_attribute(
        "alt", "Your image: most speaks for it at the " + await at(shown)
    )
    await expect(dialog.locator("figcaption")).to_contain_text("of the score")
    await expect(dialog.locator("[role=status]")).to_contain_text("Your image")
    assert await violations(shown) == []
    await shown.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button).to_be_focused()


async def at(page: Page) -> str:
    alt = await page.locator("#evidence img").first.get_attribute("alt")
    assert alt is not None
    place = alt.rpartition(" at the ")[2]
    assert place.removesuffix(".") in {
        *("upper left", "top", "upper right", "left", "centre", "right", "lower left", "bottom", "lower right")
    }
    return place


async def test_both_sides_of_a_match_are_shown(shown: Page) -> None:
    await shown.get_by_role("button", name="Where it lies: other").click()
    dialog = shown.locator("#evidence")
    await expect(dialog.get_by_role("heading")).to_have_text("Where the match with other lies")
    await expect(dialog.locator("figure")).to_have_count(2)
    await expect(dialog.locator("figcaption").nth(1)).to_contain_text("The item, by its thumbnail")
    await dialog.get_by_role("button", name="Close").click()
    await expect(dialog).to_be_hidden()


async def test_an_item_that_is_gone_is_said_in_the_dialog(shown: Page, process: Process) -> None:
    with Client(process.url) as client:
        client.delete("other")
    await shown.get_by_role("button", name="Where it lies: other").click()
    await expect(shown.locator("#evidence .fault")).to_contain_text("There is no item 'other'")
