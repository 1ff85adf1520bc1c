"""The page at `/` as a reader uses it, in Chromium against the real service."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import FilePayload, Locator, Page, expect

from rankone.client import Client
from rankone.model.bundle import Bundle
from rankone.service.auth.keys import add_key
from tests.services import Process

pytestmark = pytest.mark.anyio
expect.set_options(timeout=60_000)  # milliseconds; beside other tests, a browser is slow

AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
DROP = """
([text, name]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))], name, {type: 'image/png'}));
  const zone = document.querySelector('#search [data-drop]');
  const options = {bubbles: true, cancelable: true, dataTransfer: data};
  for (const kind of ['dragover', 'drop']) zone.dispatchEvent(new DragEvent(kind, options));
}
"""

PASTE = """
([text, name]) => {
  const data = new DataTransfer();
  if (name) data.items.add(new File([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))], name, {type: 'image/png'}));
  else data.setData('text/plain', text);
  const event = new ClipboardEvent('paste', {bubbles: true, cancelable: true, clipboardData: data});
  document.activeElement.dispatchEvent(event);
  return event.defaultPrevented;
}
"""


def colour(*rgb: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 24), rgb).save(file, "PNG")
    return file.getvalue()


def payload(name: str, data: bytes) -> FilePayload:
    return FilePayload(name=name, mimeType="image/png", buffer=data)


def fill(client: Client) -> None:
    """Nine items: three shades of red, green and blue."""
    for place, name in enumerate(("red", "green", "blue")):
        shades = [tuple(level if i == place else 20 for i in range(3)) for level in (250, 200, 150)]
        ids = [f"{name}/{shade}" for shade in range(3)]
        client.add([colour(*rgb) for rgb in shades], ids, [{"label": name, "shade": shade} for shade in range(3)])


@pytest.fixture(scope="module")
def process(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A service whose network takes no time and knows no classes."""
    process = Process(tiny.path, tmp_path_factory.mktemp("page"))
    with process.ready() as client:
        fill(client)
    yield process
    process.close()


@pytest.fixture
async def shown(page: Page, process: Process) -> AsyncIterator[Page]:
    """The page of that service. Nothing is asked of another host, and no script fails."""
    hosts, faults = set[str](), list[str]()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if request.url.startswith("http") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security" in line.text else None)
    await page.goto(process.url)
    await expect(page.locator("#status")).to_contain_text("default")
    yield page
    assert (hosts, faults) == ({process.url.removeprefix("http://")}, [])


async def choose(page: Page, *images: FilePayload, view: str = "search") -> None:
    await page.locator(f"#{view} [data-files]").set_input_files(list(images))


def ids(place: Locator) -> Locator:
    return place.locator(".card .id")


async def violations(page: Page) -> list[str]:
    await page.evaluate(AXE)
    found: dict[str, Any] = await page.evaluate("axe.run()")
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]]


async def test_a_dropped_image_finds_neighbours_with_scores_metadata_and_thumbnails(shown: Page) -> None:
    await shown.evaluate(DROP, [base64.b64encode(colour(240, 20, 20)).decode(), "mine.png"])
    row = shown.locator(".row")
    await expect(ids(row).first).to_contain_text("red/")
    await expect(row.locator(".query")).to_contain_text("This model has no classes")
    first = row.locator(".card").first
    await expect(first.locator(".score")).to_contain_text("0.99")
    await expect(first.locator(".metadata")).to_contain_text("label")
    await expect(first.locator("img")).not_to_have_js_property("naturalWidth", 0)
    await expect(shown.locator("#status")).to_contain_text("ms")
    await expect(shown.locator("#status")).to_contain_text("onnx on CPU")


async def test_a_pasted_image_is_searched_and_pasted_text_is_not_taken(shown: Page) -> None:
    assert not await shown.evaluate(PASTE, ["label == 'red'", None])
    await expect(ids(shown.locator(".row"))).to_have_count(0)
    assert await shown.evaluate(PASTE, [base64.b64encode(colour(20, 240, 20)).decode(), "image.png"])
    await expect(ids(shown.locator(".row")).first).to_contain_text("green/")


async def test_clicks_search_with_items_and_with_more_and_less_like_them(shown: Page) -> None:
    await shown.locator("#start .picture").first.click()  # nothing is chosen yet: the page offers items
    await expect(shown.locator("#examples .chip")).to_have_count(1)
    await expect(ids(shown.locator("#results"))).to_have_count(8)
    await shown.get_by_role("button", name="Less like this: green/0").click()
    await expect(shown.locator("#examples")).to_contain_text("Unlike")
    await expect(ids(shown.locator("#results"))).to_have_count(7)
    await shown.get_by_role("button", name="More like this: blue/1").click()
    await expect(shown.locator("#examples .chip")).to_have_count(3)
    await expect(ids(shown.locator("#results"))).to_have_count(6)


async def test_a_filter_holds_and_what_was_typed_survives_an_error_and_a_reload(shown: Page) -> None:
    field = shown.locator("#options [name=filter]")
    await choose(shown, payload("a.png", colour(9, 9, 240)))
    await expect(ids(shown.locator(".found"))).to_have_count(9)
    for text, count in (("label=green", 3), ('label="green" shade=1', 1), ('{"shade": {"$gte": 1}}', 6)):
        await field.fill(text)
        await field.press("Enter")
        await expect(ids(shown.locator(".found"))).to_have_count(count)
    for wrong, words in (("green", "field=value, or JSON"), ("{", "not JSON"), ('{"a": {"$near": 1}}', "$near")):
        await field.fill(wrong)
        await field.press("Enter")
        await expect(shown.locator("#notice")).to_contain_text(words)
        await expect(field).to_have_value(wrong)
    await shown.reload()
    await expect(field).to_have_value('{"a": {"$near": 1}}')


async def test_images_are_added_with_labels_browsed_and_deleted(shown: Page, process: Process) -> None:
    with Client(process.url) as client:
        client.create_index("added")
    await shown.reload()
    await shown.locator("#index").select_option("added")
    await shown.get_by_role("button", name="Add", exact=True).first.click()
    await choose(shown, payload("one.png", colour(200, 9, 9)), payload("note.png", b"no image"), view="add")
    await shown.locator("#adding [name=label]").fill("tomato")
    await shown.locator("#adding [name=metadata]").fill("year=1969")
    await shown.get_by_role("button", name="Add 2 images to added").click()
    await expect(shown.locator("#added")).to_have_text("1 of 2 images are in added.")
    await expect(shown.locator("#chosen .refused")).to_contain_text("not an image")
    with Client(process.url) as client:
        (item,) = client.items(index="added")
    assert item.metadata == {"label": "tomato", "year": 1969, "file": "one.png"}
    await shown.get_by_role("button", name="Browse").click()
    await expect(ids(shown.locator("#items"))).to_have_text([item.id])
    for answer, count in (("Cancel", 1), ("Delete", 0)):
        await shown.locator("#items").get_by_role("button", name="Delete").click()
        await shown.locator("#confirm").get_by_role("button", name=answer).click()
        await expect(ids(shown.locator("#items"))).to_have_count(count)
    await expect(shown.locator("#status")).to_contain_text("added: 0 items")


async def test_near_duplicates_stand_side_by_side(shown: Page) -> None:
    await shown.get_by_role("button", name="Browse").click()
    await expect(ids(shown.locator("#items"))).to_have_count(9)
    await shown.get_by_role("button", name="Find near-duplicates").click()
    pairs = shown.locator(".pair")
    await expect(pairs.first).to_be_visible()
    await expect(shown.locator("#progress-browse")).to_be_hidden()
    found = [await ids(pair).all_inner_texts() for pair in await pairs.all()]
    assert len(found) == len({frozenset(pair) for pair in found})
    assert ["red/0", "red/1"] in found
    assert all(len(pair) == 2 for pair in found)


async def test_fifty_images_at_once_and_a_bad_one_among_them(shown: Page) -> None:
    images = [payload(f"{n}.png", b"no" if n == 17 else colour(5 * n, 90, 90)) for n in range(50)]
    await choose(shown, *images)
    await expect(shown.locator(".row")).to_have_count(50)
    await expect(shown.locator(".row .found:has(.card)")).to_have_count(49)
    await expect(shown.locator(".row").nth(17)).to_contain_text("not an image")
    await expect(shown.locator("#progress-search")).to_be_hidden()


async def tab_to(shown: Page, text: str) -> None:
    for _ in range(60):
        await shown.keyboard.press("Tab")
        # not of the body or a section, whose text contains that of their buttons
        name = "e => e.getAttribute('aria-label') ?? (e.matches('a, button') ? e.textContent : '')"
        if text in await shown.evaluate(f"({name})(document.activeElement)"):
            return
    pytest.fail(f"{text!r} cannot be reached")


async def test_the_head_of_the_page_can_be_skipped(shown: Page) -> None:
    await tab_to(shown, "Skip to the content")
    await shown.keyboard.press("Enter")
    await shown.wait_for_url("**/#main")
    await shown.keyboard.press("Tab")
    await expect(shown.locator("main :focus")).to_have_count(1)


async def test_the_keyboard_is_enough(shown: Page) -> None:
    async with shown.expect_file_chooser() as chooser:  # from early on: the browser is told of it in its own time
        await tab_to(shown, "Choose images")
        await shown.keyboard.press("Enter")
    await (await chooser.value).set_files([payload("a.png", colour(30, 230, 30))])
    await expect(ids(shown.locator(".found"))).to_have_count(9)
    await tab_to(shown, "Search with this: green/")
    await shown.keyboard.press("Enter")
    await expect(shown.locator("#examples .chip")).to_have_count(1)
    await expect(shown.locator("#live")).to_contain_text("neighbours of green/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing(shown: Page, scheme: Any) -> None:
    await shown.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await choose(shown, payload("a.png", colour(200, 9, 9)))
    await shown.locator(".found .card").first.wait_for()
    assert await violations(shown) == []
    await shown.locator(".found .picture").first.click()
    await shown.locator(".chip").wait_for()
    assert await violations(shown) == []
    await shown.get_by_role("button", name="Add", exact=True).click()
    await choose(shown, payload("a.png", colour(200, 9, 9)), view="add")
    assert await violations(shown) == []
    await shown.get_by_role("button", name="Browse").click()
    await shown.locator("#items .card").first.wait_for()
    assert await violations(shown) == []
    await shown.get_by_role("button", name="Key").click()
    assert await violations(shown) == []


async def test_a_phone_shows_one_column_and_scrolls_only_downwards(shown: Page) -> None:
    await shown.set_viewport_size({"width": 360, "height": 740})
    await choose(shown, payload("a.png", colour(200, 9, 9)))
    await shown.locator(".found .card").first.wait_for()
    for view in ("Search", "Add", "Browse", "Map"):
        await shown.locator("nav").get_by_role("button", name=view).click()
        assert await shown.evaluate("document.documentElement.scrollWidth <= innerWidth"), view


async def test_a_key_is_asked_for_and_sent_with_everything(page: Page, tiny: Bundle, tmp_path: Path) -> None:
    key, _ = add_key(tmp_path / "keys.json", "reader", frozenset({"read", "write"}))
    process = Process(tiny.path, tmp_path / "index", keys=tmp_path / "keys.json", root_path="/behind")
    addresses = list[str]()
    page.on("request", lambda request: addresses.append(request.url))
    try:
        with Client(process.url, key=key) as client:
            client.wait_until_ready(60)
            fill(client)
        await page.goto(f"{process.url}/behind/")
        for wrong, given in ((True, "wrong"), (False, key)):
            await page.locator("#ask-key input").fill(given)
            await page.locator("#ask-key").get_by_role("button", name="Use this key").click()
            if wrong:
                await expect(page.locator("#ask-key-why")).to_contain_text("not valid")
        await expect(page.locator("#status")).to_contain_text("default: 9 items")
        await choose(page, payload("a.png", colour(240, 9, 9)))
        await expect(page.locator(".found img").first).not_to_have_js_property("naturalWidth", 0)
    finally:
        process.close()
    assert not [address for address in addresses if key in address]
    assert await page.evaluate("Object.values(localStorage)") == []


async def test_a_service_that_is_down_or_busy_is_said_and_tried_again(page: Page, tiny: Bundle, tmp_path: Path) -> None:
    process = Process(tiny.path, tmp_path / "index")
    try:
        with process.ready() as client:
            fill(client)
        await page.goto(process.url)
        await expect(page.locator("#status")).to_contain_text("default: 9 items")
        busy = {"status": 429, "detail": "the queue is full"}
        answer = {"status": 429, "body": json.dumps(busy), "headers": {"Retry-After": "7"}}
        await page.route("**/search", lambda route: route.fulfill(**answer))
        await choose(page, payload("a.png", colour(240, 9, 9)))
        await expect(page.locator("#notice")).to_contain_text("The service is busy. The queue is full. Wait 7 s.")
        await page.unroute("**/search")
        process.close()
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#notice")).to_contain_text("cannot be reached")
        restarted = Process(tiny.path, tmp_path / "index", port=process.port)
        try:
            restarted.ready().close()
            found, again = ids(page.locator(".found")), page.get_by_role("button", name="Try again")
            for _ in range(3):  # a browser can lose a request for reasons of its own; its reader tries again
                await again.click()
                await expect(found.or_(again).first).to_be_visible()
                if await found.count():
                    break
            assert await found.count() == 9, await page.locator("main").inner_text()
            await expect(page.locator("#notice")).to_be_empty()
        finally:
            restarted.close()
    finally:
        process.close()


async def test_classes_are_bars(page: Page, bundle: Bundle, images: list[bytes], tmp_path: Path) -> None:
    process = Process(bundle.path, tmp_path / "index")
    try:
        process.ready().close()
        await page.goto(process.url)
        await expect(page.locator("#start")).to_contain_text("is empty")
        await choose(page, payload("photo.png", images[0]))
        await expect(page.locator(".classes li")).to_have_count(len(bundle.manifest.classes or ()))
        await expect(page.locator(".classes")).to_contain_text("%")
        await expect(page.locator(".found")).to_contain_text("is empty")
    finally:
        process.close()
