from __future__ import annotations

import importlib.util
import re
import struct

import numpy as np
import pytest
from PIL import Image

from rankone.model.folders import SUFFIXES
from rankone.model.preprocessing import (
    MEDIA_TYPES,
    OWN,
    SERVED,
    ImageLimits,
    Preprocessing,
    UndecodableImage,
    UnsupportedImageType,
    decode,
    kind_of,
)
from tests.model.files import boxes, encoded, exif, noise, pixels, png

LIMITS = ImageLimits()
HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None


def directory(*entries: tuple[int, int, int]) -> bytes:
    """A TIFF of nothing but these entries: tag, type, value."""
    packed = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM"])
def test_what_pillow_writes_is_known(form: str) -> None:
    assert kind_of(encoded(noise(4, 4), form)) == form


IMAGES = {
    "TIFF": directory((0x0100, 3, 1), (0x014A, 4, 8)),
    "a raw file of a camera (DNG, NEF, ARW or the like)": directory((0xC612, 1, 1)),
    "a raw file of a camera (CR2)": b"II*\0\x10\0\0\0CR\2\0",
    "a raw file of a camera (CR3)": boxes(b"crx ", b"isom"),
    "Photoshop (PSD)": b"8BPS\0\1",
    "JPEG XL": b"\xff\x0a\xfa\x1f",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "an icon (ICO)": b"\0\0\1\0\1\0",
    "SVG": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "PDF": b"%PDF-1.7",
    "PostScript": b"%!PS-Adobe",
    "DICOM": bytes(128) + b"DICM",
    "OpenEXR": b"\x76\x2f\x31\x01",
}


@pytest.mark.parametrize(("name", "data"), IMAGES.items())
def test_other_images_are_named_with_what_to_do(name: str, data: bytes) -> None:
    assert kind_of(data) == name
    with pytest.raises(UnsupportedImageType, match=f"^this is {re.escape(name)}: convert it to JPEG or PNG$"):
        decode(data, LIMITS, accepted=("JPEG", "PNG"))


def test_a_preview_in_front_of_a_sensors_picture_is_raw() -> None:
    entries = [(0x00FE, 4, 1), (0x010F, 2, 0), (0x014A, 4, 8)]
    assert kind_of(directory(*entries)) == "a raw file of a camera (DNG, NEF, ARW or the like)"
    for left_out in range(3):
        assert kind_of(directory(*entries[:left_out], *entries[left_out + 1 :])) == "TIFF"
    assert kind_of(b"II*\0") == "TIFF"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the file is empty"),
        (bytes(50), "not an image: the file holds nothing but zeros, as an unfinished download does"),
        (b"<!DOCTYPE html><html>404", "not an image: this is an HTML page: perhaps a download failed"),
        (b"<?xml version='1.0'?><Error/>", "not an image: this is XML"),
        (b'{"error": 404}', "not an image: this is JSON or other text"),
        (b"hello", "not an image: this is text"),
        ("grüße".encode(), "not an image: this is text"),
        (b"RIFF\0\0\0\0WAVEfmt ", r"not an image: this is sound \(WAV\)"),
        (boxes(b"isom", b"mp42"), r"not an image: this is a video \(MP4 or MOV\)"),
        (boxes(b"qt  "), r"not an image: this is a video \(MP4 or MOV\)"),
        (b"\0\0\0\x08wide", r"not an image: this is a video \(MOV\)"),
        (b"PK\3\4", "not an image: this is a ZIP archive or an Office document"),
        (b"\0\5\x16\7\0\2", r"not an image: this is metadata of macOS \(AppleDouble, a file named ._…\)"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "not an image: this is a Git LFS pointer .*run `git lfs pull`",
        ),
        (b"/9j/4AAQSkZJRg", "not an image: this is base64 text of a JPEG: decode it first"),
        (b"\1\2\3\xff" * 9, "not an image that is known: the file begins with the bytes 01 02 03 ff 01 02 03 ff"),
    ],
)
def test_what_is_no_image_is_named_with_what_is_accepted(data: bytes, what: str) -> None:
    assert kind_of(data) is None
    with pytest.raises(UnsupportedImageType, match=f"^{what}; JPEG, PNG, WebP, AVIF and GIF are accepted$"):
        decode(data, LIMITS)


@pytest.mark.parametrize("data", [boxes(b"heic", b"mif1"), boxes(b"mif1", b"heic"), boxes(b"heix"), boxes(b"msf1")])
def test_heic_is_named_with_the_package_that_reads_it(data: bytes) -> None:
    assert kind_of(data) == "HEIC"
    if HAS_HEIC:
        with pytest.raises(UndecodableImage, match="this HEIC is damaged"):
            decode(data, LIMITS)
    else:
        reason = r"^this is HEIC: convert it to JPEG, or install rankone\[heic\]$"
        with pytest.raises(UnsupportedImageType, match=reason):
            decode(data, LIMITS)


@pytest.mark.skipif(not HAS_HEIC, reason="needs pillow-heif")
def test_heic_is_read() -> None:
    import pillow_heif  # type: ignore[import-not-found,unused-ignore]

    image = noise(8, 6).resize((64, 48))
    pillow_heif.register_heif_opener()
    data = encoded(image, "HEIF", quality=95)
    assert (
        np.abs(pixels(decode(data, LIMITS)).astype(int) - pixels(image)).mean() < 8
    )  # HEIC halves the resolution of colours


def test_the_brands_of_an_avif_may_come_in_any_order() -> None:
    assert kind_of(boxes(b"avif", b"mif1")) == kind_of(boxes(b"mif1", b"heic", b"avif")) == "AVIF"


@pytest.mark.parametrize("form", ["BMP", "TIFF", "PPM"])
def test_own_files_may_be_of_more_kinds(form: str) -> None:
    data = encoded(noise(9, 7), form)
    with pytest.raises(UnsupportedImageType, match=f"^this is {form}: convert it to JPEG or PNG$"):
        decode(data, LIMITS)
    assert np.array_equal(pixels(decode(data, LIMITS, accepted=OWN)), pixels(noise(9, 7)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "RGBA", "LA", "L", "1", "P"])
def test_every_mode_that_a_tiff_can_have_becomes_rgb(mode: str) -> None:
    image = noise(9, 7).convert(mode) if mode != "LAB" else Image.new("LAB", (9, 7), (128, 140, 120))
    found = decode(encoded(image, "TIFF"), LIMITS, accepted=OWN)
    assert np.array_equal(pixels(found), pixels(image.convert("RGB")))


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_tiff_is_turned_upright_as_a_jpeg_is(orientation: int) -> None:
    exif_data = Image.Exif()
    exif_data.load(b"Exif\0\0" + exif(orientation))
    tiff, other = (encoded(noise(9, 7), form, exif=exif_data) for form in ("TIFF", "PNG"))
    assert np.array_equal(pixels(decode(tiff, LIMITS, accepted=OWN)), pixels(decode(other, LIMITS)))


@pytest.mark.parametrize("form", ["TIFF", "PNG", "PPM"])
def test_of_16_bits_the_high_byte_counts(form: str) -> None:
    samples = np.array([[0, 255, 256, 65535]], np.uint16)
    data = encoded(Image.fromarray(samples), form)
    assert pixels(decode(data, LIMITS, accepted=OWN))[0, :, 0].tolist() == [0, 0, 1, 255]
    assert data != png(samples, 16) or form == "PNG"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(UndecodableImage, match="have 32 bits and no known range; save it with 8 or 16 bits"):
        decode(encoded(Image.new(mode, (4, 4)), "TIFF"), LIMITS, Preprocessing(), OWN)


def test_lists_of_names_cover_what_is_accepted() -> None:
    assert set(SUFFIXES) == set(OWN) > set(SERVED)
    assert {".jpg", ".jfif", ".jpe"} <= set(SUFFIXES["JPEG"])
    assert tuple(f"image/{name}" for name in ("jpeg", "png", "webp", "avif", "gif", "heic")) == MEDIA_TYPES
