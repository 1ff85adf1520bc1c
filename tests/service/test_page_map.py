"""The map on the page, in Chromium against the real service."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from rankone.client import Client
from rankone.index.mapmaking import make_map
from rankone.model.bundle import Bundle
from rankone.service.auth.keys import add_key
from tests.service.test_page_browser import colour, fill, violations
from tests.services import Process

pytestmark = pytest.mark.anyio

INK = """
() => {
  const canvas = document.querySelector('canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = {};
  for (let at = 0; at < pixels.length; at += 4) {
    if (pixels[at + 3] < 100) continue;
    const name = pixels.slice(at, at + 3).map((part) => Math.round(part / 16)).join(' ');
    seen[name] = (seen[name] ?? 0) + 1;
  }
  return seen;
}
"""
"""How many pixels of the map have each colour, roughly."""


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose indexes `default` has a map; and `empty`, which has none."""
    data = tmp_path_factory.mktemp("map")
    process = Process(tiny.path, data)
    with process.ready() as client:
        fill(client)
        client.create_index("empty")
    make_map(data / "default.sqlite", lambda _: None)
    yield process
    process.close()


@pytest.fixture
async def shown(page: Page, process: Process) -> AsyncIterator[Page]:
    """The map of that service. No script fails, and nothing is refused by the policy."""
    faults = list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    await page.goto(process.url)
    await expect(page.locator("#status")).to_contain_text("default: 9 items")
    await page.locator("nav").get_by_role("button", name="Map").click()
    await expect(page.locator("#map-note")).to_contain_text("9 items. The axes hold")
    yield page
    assert faults == []


async def ink(page: Page) -> dict[str, int]:
    """What is on the canvas once it was drawn."""
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found: dict[str, int] = await page.evaluate(INK)
    return found


async def drawn(page: Page) -> str:
    """The picture on the canvas; a ring is round the point that is looked at."""
    await ink(page)
    return str(await page.evaluate("document.querySelector('canvas').toDataURL()"))


async def middle(page: Page) -> tuple[float, float]:
    box = await page.locator("canvas").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


async def places(page: Page) -> dict[str, tuple[float, float]]:
    """Where each item is on the screen, worked out here from what the service answers."""
    found = await page.evaluate("fetch('indexes/default/map').then((answer) => answer.json())")
    (x, y), box = (found["x"], found["y"]), await page.locator("canvas").bounding_box()
    assert box is not None
    wide, high = max(x) - min(x), max(y) - min(y)
    scale = min((box["width"] - 42) / wide, (box["height"] - 42) / high)  # a border of a pixel on each side
    left, top = await middle(page)
    return {
        name: (left + (a - (min(x) + max(x)) / 2) * scale, top - (b - (min(y) + max(y)) / 2) * scale)
        for name, a, b in zip(found["ids"], x, y, strict=True)
    }


async def test_points_are_coloured_by_a_field_of_the_readers_choice(shown: Page) -> None:
    legend = shown.locator("#legend li")
    await expect(legend).to_have_text(["red: 3", "green: 3", "blue: 3"])
    assert len([count for count in (await ink(shown)).values() if count > 100]) >= 3
    await shown.locator("#colour").select_option("shade")
    await expect(legend).to_have_text(["0: 3", "1: 3", "2: 3"])
    await shown.locator("#colour").select_option("nothing")
    await expect(legend).to_have_count(0)
    assert len([count for count in (await ink(shown)).values() if count > 100]) == 1


async def test_hovering_shows_the_item_and_a_click_searches_with_it(shown: Page) -> None:
    for name, (x, y) in [*(await places(shown)).items()][:4]:
        await shown.mouse.move(x, y)
        await expect(shown.locator("#looked-at .id")).to_have_text(name)
        await expect(shown.locator("#looked-at")).to_contain_text(name.partition("/")[0])
        await expect(shown.locator("#looked-at img")).not_to_have_js_property("naturalWidth", 0)
    await shown.mouse.click(x, y)
    clicked = await drawn(shown)
    for other in (await places(shown)).values():  # a click stays
        await shown.mouse.move(*other)
        assert await drawn(shown) == clicked
    await shown.get_by_role("button", name=f"Search with this: {name}").first.click()
    await expect(shown.locator("#examples .chip")).to_contain_text(name)
    await expect(shown.locator("#map")).to_be_hidden()


async def test_the_wheel_buttons_and_dragging_move_the_view(shown: Page) -> None:
    x, y = await middle(shown)
    whole = await ink(shown)
    for name, at in [*(await places(shown)).items()][::4]:  # what the wheel points at stays there
        await shown.mouse.move(*at)
        for _ in range(6):
            await shown.mouse.wheel(0, -100)
        await shown.mouse.click(*at)
        await expect(shown.locator("#looked-at .id")).to_have_text(name)
        await shown.locator("canvas").press("0")
    await shown.locator("canvas").press("Escape")
    assert await ink(shown) == whole
    await shown.mouse.move(x, y)
    for _ in range(12):
        await shown.mouse.wheel(0, -100)
    assert sum((await ink(shown)).values()) < sum(whole.values()) * 3 / 4  # fewer points, though larger ones
    assert await shown.evaluate("scrollY") == 0
    await shown.get_by_role("button", name="Show all").click()
    assert await ink(shown) == whole
    await shown.get_by_role("button", name="Zoom in").click()
    assert await ink(shown) != whole
    await shown.get_by_role("button", name="Zoom out").click()
    assert await ink(shown) == whole
    await shown.mouse.move(x, y)
    await shown.mouse.down()
    await shown.mouse.move(x + 4000, y, steps=3)
    await shown.mouse.up()
    assert await ink(shown) == {}
    await expect(shown.locator("#looked-at .card")).to_have_count(0)


async def test_two_fingers_zoom_what_is_between_them_and_one_moves_it(shown: Page) -> None:
    session = await shown.context.new_cdp_session(shown)

    async def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    name, (x, y) = next(iter((await places(shown)).items()))
    whole = await ink(shown)
    await touch("touchStart", (x - 20, y))
    await touch("touchStart", (x - 20, y), (x + 20, y))
    for apart in range(20, 120, 10):
        await touch("touchMove", (x - apart, y), (x + apart, y))
    await touch("touchEnd")
    assert await ink(shown) != whole
    await expect(shown.locator("#looked-at .card")).to_have_count(0)  # it was no tap
    await shown.mouse.click(x, y)
    await expect(shown.locator("#looked-at .id")).to_have_text(name)
    zoomed = await drawn(shown)
    await touch("touchStart", (x, y))
    for moved in range(5, 60, 5):
        await touch("touchMove", (x + moved, y))
    await touch("touchEnd")
    assert await drawn(shown) != zoomed
    await shown.mouse.click(x + 55, y)
    await expect(shown.locator("#looked-at .id")).to_have_text(name)
    await shown.locator("canvas").press("0")
    await shown.locator("canvas").press("Escape")
    assert await ink(shown) == whole


def beyond(start: str, key: str, places: dict[str, tuple[float, float]]) -> str:
    """The item that an arrow key leads to: the nearest within 63 degrees, sideways counting twice; else the same."""
    dx, dy = {"ArrowRight": (1, 0), "ArrowLeft": (-1, 0), "ArrowUp": (0, -1), "ArrowDown": (0, 1)}[key]
    costs = {start: 1e9}
    for name, (left, top) in places.items():
        x, y = left - places[start][0], top - places[start][1]
        along, aside = x * dx + y * dy, abs(x * dy - y * dx)
        if along > 0.5 and aside <= 2 * along:
            costs[name] = along + 2 * aside
    return min(costs, key=lambda name: costs[name])


async def test_keys_go_from_item_to_item_and_search(shown: Page) -> None:
    canvas, where, (x, y) = shown.locator("canvas"), await places(shown), await middle(shown)
    await shown.evaluate("addEventListener('keydown', (event) => (window.kept = event.defaultPrevented))")
    await canvas.press("ArrowRight")
    assert await shown.evaluate("window.kept")  # the page does not scroll
    name = min(where, key=lambda name: math.hypot(where[name][0] - x, where[name][1] - y))
    seen = set[str]()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowUp"):
        await expect(shown.locator("#looked-at .id")).to_have_text(name)
        await expect(shown.locator("#live")).to_have_text(f"{name}, {name.partition('/')[0]}")
        seen.add(name)
        await canvas.press(key)
        name = beyond(name, key, where)
    await expect(shown.locator("#looked-at .id")).to_have_text(name)
    assert len(seen) > 2
    before = await ink(shown)
    await canvas.press("+")
    assert await ink(shown) != before
    await canvas.press("0")
    assert await ink(shown) == before
    await canvas.press("Tab")
    assert not await shown.evaluate("window.kept")
    await canvas.press("Enter")
    await expect(shown.locator("#examples .chip")).to_contain_text(name)


async def test_without_a_map_it_is_said_how_to_make_one_and_an_older_one_says_so(shown: Page, process: Process) -> None:
    note = shown.locator("#map-note")
    await shown.locator("#index").select_option("empty")
    await expect(note).to_contain_text("There is no map of the index 'empty': `rankone index map FOLDER empty`")
    await expect(shown.locator("canvas")).to_be_hidden()
    await expect(shown.locator("#notice")).to_be_empty()
    await shown.locator("#index").select_option("default")
    await expect(shown.locator("canvas")).to_be_visible()
    await expect(note).not_to_contain_text("has changed")
    with Client(process.url) as client:
        client.add([colour(9, 9, 9)], ["black"])
        try:
            await shown.locator("nav").get_by_role("button", name="Map").click()
            await expect(note).to_contain_text("The index has changed since: “rankone index map FOLDER default”")
        finally:
            client.delete(["black"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(shown: Page, scheme: Any) -> None:
    await shown.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await shown.locator("canvas").press("ArrowRight")
    await shown.locator("#looked-at .card").wait_for()
    assert await violations(shown) == []
    await shown.locator("#index").select_option("empty")
    await expect(shown.locator("canvas")).to_be_hidden()
    assert await violations(shown) == []


async def test_a_phone_shows_the_map_above_the_item(shown: Page) -> None:
    await shown.set_viewport_size({"width": 360, "height": 740})
    x, y = next(iter((await places(shown)).values()))
    await shown.mouse.click(x, y)
    await shown.locator("#looked-at .card").wait_for()
    assert await shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    map_box, card_box = await shown.locator("canvas").bounding_box(), await shown.locator("#looked-at").bounding_box()
    assert map_box is not None
    assert card_box is not None
    assert card_box["y"] >= map_box["y"] + map_box["height"]


async def test_it_works_with_a_key_behind_a_prefix(page: Page, tiny: Bundle, tmp_path: Path) -> None:
    key, _ = add_key(tmp_path / "keys.json", "reader", frozenset({"read", "write"}))
    process = Process(tiny.path, tmp_path / "index", keys=tmp_path / "keys.json", root_path="/behind")
    try:
        with Client(process.url, key=key) as client:
            client.wait_until_ready(60)
            fill(client)
        make_map(tmp_path / "index" / "default.sqlite", lambda _: None)
        await page.goto(f"{process.url}/behind/")
        await page.locator("#ask-key input").fill(key)
        await page.locator("#ask-key").get_by_role("button", name="Use this key").click()
        await expect(page.locator("#status")).to_contain_text("default: 9 items")
        await page.locator("nav").get_by_role("button", name="Map").click()
        await expect(page.locator("#legend li")).to_have_count(3)
        await page.locator("canvas").press("ArrowRight")
        await expect(page.locator("#looked-at img")).not_to_have_js_property("naturalWidth", 0)
    finally:
        process.close()
