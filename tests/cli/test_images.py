"""Which files are images to send, and in which order."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankone.cli.images import ImageFile, Service, send
from rankone.model.errors import RankoneError
from rankone.model.folders import SUFFIXES, LeftOut
from rankone.model.preprocessing import ImageLimits, Preprocessing, decode, kind_of
from rankone.service.job.sources import id_of, images_at
from rankone.service.routes.checks import check_id
from tests.model.files import encoded, noise, pixels
from tests.model.profiles import cmyk_profile, rgb_profile, srgb_of_lab


def test_folders_are_looked_through_in_order(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.JPG", "b.webp", "a/c/x.jpeg", "a/notes.txt", "c.png/inside.png", "z.psd"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "linked.png").symlink_to(tmp_path / "b" / "2.png")
    assert images_at(tmp_path, LeftOut()) == sorted(tmp_path / name for name in [*names[:4], names[5], "linked.png"])
    assert images_at(tmp_path / "a/notes.txt", LeftOut()) == [tmp_path / "a/notes.txt"]


def test_nothing_to_send_is_said(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "nowhere", "nowhere is not there"), (tmp_path, "no images: give")):
        with pytest.raises(RankoneError, match=words):
            send([path], Service(), lambda *_: pytest.fail("nothing is asked"), lambda *_: None)


def test_every_kind_of_file_that_can_be_read_is_looked_for(tmp_path: Path) -> None:
    paths = [tmp_path / f"image{suffix}" for suffixes in SUFFIXES.values() for suffix in suffixes]
    for path in paths:
        path.touch()
    assert images_at(tmp_path, LeftOut()) == sorted(paths)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM"])
def test_kinds_that_the_service_refuses_are_sent_as_png(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"image{SUFFIXES[form][0]}"
    path.write_bytes(encoded(noise(9, 7), form))
    sent = ImageFile(path).read_bytes()
    assert kind_of(sent) == "PNG"
    assert np.array_equal(pixels(decode(sent, ImageLimits())), pixels(noise(9, 7)))


def test_their_colours_are_kept(tmp_path: Path) -> None:
    """By the profile, so that the service treats them as its bundle was trained; PNG has no CMYK, which becomes sRGB."""
    wide, press = tmp_path / "wide.tif", tmp_path / "press.tif"
    wide.write_bytes(encoded(noise(9, 7), "TIFF", icc_profile=rgb_profile("prophoto", 1.8)))
    lab = np.array([60.0, 40, 30])
    profile = cmyk_profile(np.broadcast_to(lab, (2, 2, 2, 2, 3)))
    press.write_bytes(encoded(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF", icc_profile=profile))
    found = decode(ImageFile(wide).read_bytes(), ImageLimits(), Preprocessing())
    assert found.info["icc_profile"] == rgb_profile("prophoto", 1.8)
    found = decode(ImageFile(press).read_bytes(), ImageLimits())
    assert np.abs(pixels(found) - srgb_of_lab(lab)).max() < 3


def test_a_file_that_cannot_be_converted_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "half.tif").write_bytes(encoded(noise(64, 64), "TIFF")[:2000])
    with pytest.raises(OSError, match="cannot be decoded: this TIFF is damaged"):
        ImageFile(tmp_path / "half.tif").read_bytes()
    monkeypatch.setitem(sys.modules, "rankone.model.preprocessing", None)
    with pytest.raises(
        OSError, match=r"the service does not take its kind; to convert it: pip install 'rankone\[cpu\]'"
    ):
        ImageFile(tmp_path / "half.tif").read_bytes()


def test_a_path_becomes_an_id_that_the_service_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ids = {"a/b.png": "a/b.png", "./a.png": "a.png", "../a.png": f"{tmp_path}/a.png", "a/../b": f"{tmp_path}/here/b"}
    for path, expected in {**ids, "a\nb\x1b.png": "a\\nb\\x1b.png"}.items():
        assert id_of(Path(path)) == check_id(expected) == expected
