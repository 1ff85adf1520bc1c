from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rankone.training.data import DataError
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
