"""`rankone explain`, before a real service."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.__main__ import run
from rankone.cli.explain import summary
from rankone.client import Client, Explanation
from rankone.training.data import DataSet
from tests.cli.test_commands import rankone, service
from tests.services import Process, Start, start

__all__ = ["Start", "service", "start"]


def test_a_picture_and_a_summary_of_a_class_and_of_both_sides_of_a_match(
    service: Process, photos: DataSet, tmp_path: Path
) -> None:
    image, other = photos.test.paths[0], photos.test.paths[4]
    url = ("--url", service.url)
    with Client(service.url) as client:
        client.add(other, ["explained/x"])
        best = client.classify(image, top_k=1)[0][0].label
    told = rankone("explain", image, "--out", tmp_path / "a.png", *url).stdout
    assert f"a.png: evidence for the class {best}\n" in told
    (score, shares, rest) = map(float, re.findall(r"score (\S+) = (\S+) from 4 x 4 locations \+ (\S+)", told)[0])
    assert score == pytest.approx(shares + rest, abs=2e-4)
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"

    sides = ("--item", "explained/x", "--item-image", other)
    told = rankone("explain", image, *sides, "--out", tmp_path / "b.png", *url).stdout
    assert "b.png: evidence for the match with explained/x, in the query\n" in told
    assert "b.item.png: evidence for the match with explained/x, in the item\n" in told
    assert "cosine of this image with the stored item: " in told
    assert (tmp_path / "b.item.png").read_bytes() != (tmp_path / "b.png").read_bytes()

    refused = rankone("explain", image, "--class", "tulip", "--out", tmp_path / "c.png", *url)
    assert (refused.returncode, "there is no class 'tulip'" in refused.stderr) == (2, True)
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--class", "rose", "--item", "x"], "give --class or --item, not both"),
        (["--item-image", "b.jpg"], "--item-image is the image of an item: give --item too"),
        (["--out", "a.jpg"], "a.jpg: give the name of a .png file"),
        (["--out", "no/such/a.png"], "in a folder that is there"),
    ],
)
def test_flags_that_do_not_go_together_are_named(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("explain", ["a.jpg", *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_summary_names_the_part_with_the_largest_share() -> None:
    shares = np.zeros((6, 6), np.float32)
    shares[0, 5], shares[5, 0], shares[3, 3] = 2, -0.5, 0.25
    side = Explanation("query", "x", None, None, score=2.0, rest=0.25, shares=shares)
    first, second, third = summary(side)
    assert first == "  score 2.0000 = 1.7500 from 6 x 6 locations + 0.2500 from none of them"
    assert second == "  for 2.2500, against -0.5000"
    assert third == "  most of it: upper right (+2.0000); least: lower left (-0.5000)"
