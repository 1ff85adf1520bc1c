"""docs/*.md: no page and not all together are longer than a reader can be asked to read."""

from __future__ import annotations

from tests.pages import ROOT

WORDS = {page.name: len(page.read_text(encoding="utf-8").split()) for page in (ROOT / "docs").glob("*.md")}


def test_the_pages_are_short() -> None:
    assert len(WORDS) >= 24
    assert sum(WORDS.values()) <= 14_000
    assert {page: words for page, words in WORDS.items() if words > 1_400} == {}
