from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rankone.training.data import DataError
from rankone.training.metrics import confusion_matrix
from rankone.training.report.mistakes import Confusion, example, most_confused
from tests.model.files import encoded
from tests.model.profiles import cmyk_profile, srgb_of_lab
from tests.training.report.conftest import Make

LABELS = np.array([0, 0, 0, 1, 1, 2, 2])
LOGITS = np.array([[5.0, 0, 0], [0, 1, 0], [0, 3, 0], [0, 2, 0], [0, 4, 0], [0, 0, 9], [1, 0, 0]])


def confused(logits: np.ndarray, labels: np.ndarray, limit: int = 10) -> list[Confusion]:
    return most_confused(logits, labels, confusion_matrix(logits.argmax(1), labels, logits.shape[1]), limit)


def test_pairs_come_by_number_each_with_the_clearest_mistake_and_the_clearest_of_the_other() -> None:
    first, second = confused(LOGITS, LABELS)
    assert first == Confusion(true=0, taken=1, count=2, mistake=2, typical=4)
    assert second == Confusion(true=2, taken=0, count=1, mistake=6, typical=0)
    assert confused(LOGITS, LABELS, limit=1) == [first]
    assert confused(LOGITS[:1], LABELS[:1]) == []


def test_where_none_is_recognized_the_nearest_is_typical_and_where_there_is_none_nothing() -> None:
    logits = np.array([[0.0, 5, 0], [3, 1, 0], [3, 2, 0]])
    pairs = {(pair.true, pair.taken): pair.typical for pair in confused(logits, np.array([0, 1, 1]))}
    assert pairs == {(0, 1): 2, (1, 0): 0}
    (pair,) = confused(np.array([[0.0, 0, 5]]), np.array([0]))
    assert pair.typical is None


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


def test_an_example_shows_what_it_stands_for_though_another_image_has_a_higher_probability() -> None:
    """Image 1 of class 0 goes to class 2 with 0.45 for class 1; image 3 of class 1 too. Both are examples of neither."""
    probabilities = np.array([[0.3, 0.4, 0.3], [0.05, 0.45, 0.5], [0.3, 0.4, 0.3], [0.05, 0.45, 0.5]])
    pairs = confused(np.log(probabilities), np.array([0, 0, 1, 1]))
    (pair,) = [one for one in pairs if (one.true, one.taken) == (0, 1)]
    assert (pair.mistake, pair.typical) == (0, 2)
