from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.model.bundle import PoolingRecord
from rankone.model.composition import compose
from rankone.model.explanation import Evidence
from rankone.training.data import DataError
from rankone.training.report import Findings, write_report
from rankone.training.report.findings import Contrast
from rankone.training.report.mistakes import example
from tests.model.files import encoded
from tests.model.profiles import cmyk_profile, srgb_of_lab
from tests.training.report.conftest import Make


def test_an_example_is_small_keeps_its_shape_and_loses_its_banner(make: Make) -> None:
    for size, banner, expected in (((400, 220), 20, (160, 80)), ((30, 20), 0, (30, 20)), ((30, 20), 5, (30, 15))):
        findings = make(("a",), (0,), (0,), size=size, banner=banner)
        picture = example(findings.data.test, 0, "name", "alt")
        assert Image.open(io.BytesIO(picture.light)).size == expected
        assert picture.caption == "images/0.png"


def test_an_example_is_shown_in_srgb(make: Make) -> None:
    findings = make(("a",), (0,), (0,))
    press = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    profile = cmyk_profile(np.broadcast_to([60.0, 40, 30], (2, 2, 2, 2, 3)))
    findings.data.test.paths[0].write_bytes(encoded(press, "JPEG", icc_profile=profile))
    shown = Image.open(io.BytesIO(example(findings.data.test, 0, "name", "alt").light))
    expected = srgb_of_lab(np.array([60.0, 40, 30]))
    assert (shown.mode, shown.info) == ("RGB", {})
    assert np.abs(np.asarray(shown, np.float64) - expected).max() < 3


def test_an_example_that_cannot_be_read_names_its_file(make: Make) -> None:
    findings = make(("a",), (0,), (0,))
    findings.data.test.paths[0].write_text("no image")
    with pytest.raises(DataError, match="0.png: not an image: this is text"):
        example(findings.data.test, 0, "name", "alt")


def corner(row: int, column: int, value: float, rest: float = 0.0) -> Evidence:
    """All evidence is at one of 4 x 4 locations."""
    shares = np.zeros((4, 4))
    shares[row, column] = value
    return Evidence(shares, rest)


CONTRASTS = {
    1: Contrast(taken=corner(0, 0, 2.0, rest=0.25), true=corner(3, 3, -1.0)),
    5: Contrast(taken=corner(0, 3, 0.1), true=corner(3, 0, 4.0)),
}
"""Of the two mistaken images of `explained`."""


def explained(make: Make, **others: object) -> Findings:
    return make(("brick", "coins", "grass"), (0, 0, 1, 1, 2, 2), (0, 1, 1, 1, 2, 0), size=(320, 240), **others)


def drawn(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"report/{name}.png"), np.float64)


@pytest.mark.usefixtures("_undrawn")
def test_beside_each_mistake_is_the_evidence_for_both_classes(make: Make, tmp_path: Path) -> None:
    """On the image itself, in its place, orange for and blue against, on one scale."""
    write_report(explained(make, contrasts=CONTRASTS), tmp_path)
    kinds = ("mistake", "taken", "true", "typical")
    shown = {path.stem for path in (tmp_path / "report").glob("confused-*")}
    assert shown == {f"confused-{place:02d}-{kind}" for place in (1, 2) for kind in kinds}
    image = drawn(tmp_path, "confused-01-mistake")
    gray = image + 0.7 * (image.mean(axis=2, keepdims=True) - image)
    taken, true = drawn(tmp_path, "confused-01-taken"), drawn(tmp_path, "confused-01-true")
    assert image.shape == taken.shape == true.shape == (120, 160, 3)
    seen = slice(20, 140)  # the square in the middle, whose quarters are 30 pixels wide
    np.testing.assert_allclose(taken[:, :20], 0.25 * gray[:, :20], atol=1)
    np.testing.assert_allclose(taken[70:, seen], gray[70:, seen], atol=1)
    np.testing.assert_allclose(taken[3, 23], 0.2 * gray[3, 23] + 0.8 * np.array([255, 120, 0]), atol=12)
    np.testing.assert_allclose(true[116, 136], 0.6 * gray[116, 136] + 0.4 * np.array([0, 90, 255]), atol=12)


@pytest.mark.usefixtures("_undrawn")
def test_the_maps_are_told_in_words(make: Make, tmp_path: Path) -> None:
    write_report(explained(make, contrasts=CONTRASTS), tmp_path)
    text = (tmp_path / "report.md").read_text()
    table = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    (head,) = (cells for cells in table if cells[3:4] == ["a mistaken image"])
    row = table[table.index(head) + 2]
    assert [head[4], head[5]] == ["evidence for what it was taken for", "evidence for its true class"]
    assert row[4].startswith("![brick, mistaken: evidence for coins, most of it: upper left; least: ")
    assert row[4].endswith("(report/confused-01-taken.png) score 2.25")
    assert re.match(r"!\[brick, mistaken: evidence for brick, most of it: .*; least: lower right\]", row[5])
    assert row[5].endswith("(report/confused-01-true.png) score -1.00")
    assert text.count("blue ones against it") == 1
    assert "without evidence" not in text


@pytest.mark.usefixtures("_undrawn")
def test_a_pooling_without_evidence_says_so_once_and_shows_the_mistakes(make: Make, tmp_path: Path) -> None:
    pooling = PoolingRecord(system="max", options={}, parts=compose("max").describe())
    write_report(explained(make, changes={"pooling": pooling}), tmp_path)
    for file in ("report.md", "report.html"):
        text = (tmp_path / file).read_text()
        assert (
            text.count("The mistakes are shown without evidence: max pooling keeps one location of each channel") == 1
        )
        assert "blue ones against it" not in text
        assert "evidence for" not in text
    shown = {path.stem for path in (tmp_path / "report").glob("confused-*")}
    assert shown == {f"confused-{place:02d}-{kind}" for place in (1, 2) for kind in ("mistake", "typical")}
