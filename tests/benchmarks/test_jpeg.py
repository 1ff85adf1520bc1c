"""What `rankone bench jpeg` and `rankone bench reduced` measure is right: the ways end in nearly the same pixels."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from benchmarks import jpeg
from benchmarks.quality import reduced
from benchmarks.timing import Timing, compare
from rankone.model.preprocessing import ImageLimits, Preprocessing, preprocess
from rankone.model.preprocessing.jpeg import walk

SIZE = 128
CAMERA = (1600, 1200)


def test_a_photograph_is_as_a_phone_stores_it() -> None:
    data, noisy = (jpeg.photograph("coffee.png", deviation, CAMERA) for deviation in (0.0, 3.0))
    image = JpegImageFile(io.BytesIO(data))
    assert image.size == CAMERA
    assert image.getexif()[0x0112] == 6
    assert [component[1:3] for component in image.layer] == [(2, 2), (1, 1), (1, 1)]  # 4:2:0
    exact, found = (np.asarray(Image.open(io.BytesIO(file)).convert("L"), float) for file in (data, noisy))
    assert 1 < (found - exact).std() < 3  # of which the compression leaves a part


def test_every_way_sees_the_same_picture() -> None:
    """In normalized levels, where 0.02 is one of 255; torchvision rounds where the centre is cut and the means are taken."""
    files = [jpeg.photograph("coffee.png", 3.0, CAMERA)]
    found = {name: np.asarray(call()[0]) for name, call in jpeg.contenders(files, SIZE).items()}
    assert list(found) == [jpeg.RIVAL, "whole", jpeg.TURNED_FIRST, jpeg.OURS]
    for image in found.values():
        assert image.shape == (3, SIZE, SIZE)
        assert np.abs(image - found["whole"]).mean() < 0.05
    assert np.array_equal(found["whole"], preprocess(files[0], Preprocessing(size=SIZE, jpeg="whole")))
    assert np.array_equal(found[jpeg.OURS], preprocess(files[0], Preprocessing(size=SIZE)))
    assert not np.array_equal(found[jpeg.OURS], found["whole"])


def test_the_parts_are_those_of_the_reduced_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "SIZE", SIZE)
    data = jpeg.photograph("coffee.png", 0.0, CAMERA)
    assert walk(data, ImageLimits(), Preprocessing(size=SIZE)).scale == 4
    calls = jpeg.parts(data)
    assert calls["decoding at 1/4"]().size == (400, 300)
    assert calls["resizing and turning"]().size == (SIZE, SIZE)
    assert calls["for comparison: turning first"]().size == (300, 400)
    assert np.array_equal(calls["normalizing"](), preprocess(data, Preprocessing(size=SIZE)))
    assert calls["decoding at 1/8"]().size == (200, 150)


def test_processor_time_does_not_count_waiting() -> None:
    calls = list[float]()

    def waits() -> None:
        calls.append(0.06)
        time.sleep(calls[-1])

    times = compare({"waits": waits}, rounds=2, warm_up=0, device="processor")
    assert times["waits"].median < 0.03
    assert len(calls) == 2  # a turn is 50 ms by the clock, so one call fills it
    assert Timing(2, 4, 6).divided(2) == Timing(1, 2, 3)


def test_the_variants_of_a_picture() -> None:
    """Of a smooth picture they are nearly the same, and of a sharp one the reduced is less near."""
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((640, 480))
    data = reduced.shrunk(smooth, 448)
    assert min(Image.open(io.BytesIO(data)).size) == 448
    found = reduced.variants(data, 2)
    assert list(found)[:2] == ["whole", "reduced"]
    assert np.array_equal(found["whole"], preprocess(data, Preprocessing(size=224, jpeg="whole")))
    for image in found.values():
        assert image.shape == (3, 224, 224)
        assert np.abs(image - found["whole"]).mean() < 0.05
    assert len({image.tobytes() for image in found.values()}) == 4
