"""Files as people have them, over HTTP: what is accepted means the same as a plain PNG, what is refused says why."""

from __future__ import annotations

import importlib.util
import io
import struct
import time
import zlib

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.model.files import boxes, chunk, encoded, header, noise, pixels, png, scan_bomb, with_chunk
from tests.model.profiles import rgb_profile, srgb_of_rgb
from tests.services import multipart

pytestmark = pytest.mark.anyio

HAS_HEIC = importlib.util.find_spec("pillow_heif") is not None
PICTURE = noise(8, 6).resize((64, 64), Image.Resampling.BICUBIC)
PLAIN = encoded(PICTURE)
MEGABYTES = zlib.compress(bytes(2_000_000))
PHOTO = encoded(PICTURE, "JPEG", quality=95)
FRAMES = {"save_all": True, "append_images": [noise(64, 64)]}
GRAY_ROWS = np.repeat(np.array([[9], [3]], np.uint8), [32, 32], axis=0).repeat(64, axis=1)


def converted(name: str, gamma: float) -> bytes:
    """The picture's colours as they are in sRGB, where its numbers are those of another space."""
    return encoded(Image.fromarray(np.rint(srgb_of_rgb(pixels(PICTURE), name, gamma)).astype(np.uint8)))


def again(data: bytes) -> bytes:
    """What Pillow decodes of a file, as PNG."""
    return encoded(Image.open(io.BytesIO(data)).convert("RGB"))


ACCEPTED = {
    "a long compressed text": (with_chunk(PLAIN, chunk(b"zTXt", b"Comment\0\0" + MEGABYTES)), PLAIN),
    "a long profile": (with_chunk(PLAIN, chunk(b"iCCP", b"name\0\0" + MEGABYTES)), PLAIN),
    "a wrong checksum beside the picture": (with_chunk(PLAIN, chunk(b"tEXt", b"Comment\0text")[:-4] + b"none"), PLAIN),
    "a broken animation": (with_chunk(PLAIN, chunk(b"acTL", struct.pack(">II", 9, 0))), PLAIN),
    "a JPEG without its end": (PHOTO[:-2], again(PHOTO)),
    "a transparent gray of 4 bits": (
        png(GRAY_ROWS, 4, chunk(b"tRNS", b"\0\3")),
        encoded(Image.fromarray(np.where(GRAY_ROWS == 3, 255, 9 * 17).astype(np.uint8))),
    ),
    "Display P3": (encoded(PICTURE, icc_profile=rgb_profile("display_p3", 2.2)), converted("display_p3", 2.2)),
    "ProPhoto": (encoded(PICTURE, icc_profile=rgb_profile("prophoto", 1.8)), converted("prophoto", 1.8)),
    "AVIF": (avif := encoded(PICTURE, "AVIF"), again(avif)),
    "GIF": (encoded(PICTURE.quantize(64), "GIF"), encoded(PICTURE.quantize(64))),
    "animated WebP": (encoded(PICTURE, "WEBP", lossless=True, **FRAMES), PLAIN),
}
REFUSED = {
    "scans": (
        scan_bomb(7000, 5000),
        422,
        "cannot be decoded: this JPEG has too many scans: more than 40 of 7000 x 7000",
    ),
    "12 bits": (PHOTO.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), 422, "this is a JPEG of 12-bit samples"),
    "no palette": (header(4, 4, 8, 3) + PLAIN[33:], 422, "this PNG has a palette image, but no palette"),
    "BMP": (encoded(PICTURE, "BMP"), 415, "this is BMP: convert it to JPEG or PNG"),
    "TIFF": (encoded(PICTURE, "TIFF"), 415, "this is TIFF: convert it to JPEG or PNG"),
    "a raw file": (b"II*\0\x10\0\0\0CR\2\0", 415, "this is a raw file of a camera (CR2): convert it to JPEG or PNG"),
    "an error page": (b"<html>404</html>", 415, "not an image: this is an HTML page: perhaps a download failed"),
}


async def embedded(http: httpx.AsyncClient, images: list[bytes]) -> npt.NDArray[np.float64]:
    response = await http.post("/embed", files=multipart(images))
    assert response.status_code == 200, response.text
    return np.array(response.json()["embeddings"])


@pytest.mark.parametrize("name", ACCEPTED)
async def test_it_is_accepted_and_means_the_same_as_a_plain_image(http: httpx.AsyncClient, name: str) -> None:
    found, expected, other = await embedded(http, [*ACCEPTED[name], encoded(noise(64, 64))])
    assert found @ expected > 0.9999
    assert found @ other < 0.999


async def test_a_profile_changes_what_its_colours_mean(http: httpx.AsyncClient) -> None:
    for name in ("Display P3", "ProPhoto"):
        found, ignored = await embedded(http, [ACCEPTED[name][0], PLAIN])
        assert found @ ignored < 0.9999


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_with_what_it_is(http: httpx.AsyncClient, name: str) -> None:
    data, status, reason = REFUSED[name]
    started = time.perf_counter()
    response = await http.post("/embed", content=data, headers={"content-type": "image/jpeg"})
    assert (response.status_code, reason in response.json()["detail"]) == (status, True), response.text
    assert time.perf_counter() - started < 1, "before it is decoded"


async def test_heic_under_another_name_is_named(http: httpx.AsyncClient) -> None:
    response = await http.post("/embed", content=boxes(b"heic", b"mif1"), headers={"content-type": "image/jpeg"})
    missing = (415, "image 0: this is HEIC: convert it to JPEG, or install rankone[heic]")
    empty = (422, "image 0: cannot be decoded: this HEIC is damaged; save it again")
    assert (response.status_code, response.json()["detail"]) == (empty if HAS_HEIC else missing)
