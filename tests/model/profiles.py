"""ICC profiles made byte by byte (ICC.1:2022), and a slow float64 reference of what their colours are in sRGB."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
WHITES = {"D65": (0.3127, 0.3290), "D50": (0.3457, 0.3585)}
PRIMARIES = {
    "srgb": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), "D65"),
    "display_p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), "D65"),
    "adobe_rgb": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), "D65"),
    "prophoto": ((0.734699, 0.265301), (0.159597, 0.840403), (0.036598, 0.000105), "D50"),
}


def _xyz(x: float, y: float) -> Floats:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def to_d50(name: str) -> Floats:
    """The matrix from linear RGB with these primaries to XYZ, adapted to D50 (Bradford)."""
    *primaries, white = PRIMARIES[name]
    white_xyz = _xyz(*WHITES[white])
    columns = np.stack([_xyz(*primary) for primary in primaries], axis=1)
    matrix = columns * np.linalg.solve(columns, white_xyz)
    scale = np.diag((BRADFORD @ _xyz(*WHITES["D50"])) / (BRADFORD @ white_xyz))
    adapted: Floats = np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ matrix
    return adapted


def srgb_of_xyz(xyz: Floats) -> Floats:
    """0 to 255, not rounded; what no screen shows is clipped."""
    linear = np.clip(xyz @ np.linalg.inv(to_d50("srgb")).T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_of_rgb(rgb: npt.NDArray[np.uint8], name: str, gamma: float) -> Floats:
    return srgb_of_xyz((rgb / 255) ** gamma @ to_d50(name).T)


def srgb_of_gray(gray: npt.NDArray[np.uint8], gamma: float) -> Floats:
    return srgb_of_xyz((gray[..., None] / 255) ** gamma * _xyz(*WHITES["D50"]))


def srgb_of_lab(lab: Floats) -> Floats:
    lightness, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    middle = (lightness + 16) / 116
    f = np.stack([middle + a / 500, middle, middle - b / 200], axis=-1)
    return srgb_of_xyz(np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50)


def rgb_profile(name: str, gamma: float) -> bytes:
    tags = {b"wtpt": _xyz_tag(D50)}
    for channel, column in zip(b"rgb", to_d50(name).T, strict=True):
        tags[bytes((channel,)) + b"XYZ"] = _xyz_tag(column)
        tags[bytes((channel,)) + b"TRC"] = _gamma_tag(gamma)
    return profile(b"mntr", b"RGB ", b"XYZ ", tags)


def gray_profile(gamma: float) -> bytes:
    return profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz_tag(D50), b"kTRC": _gamma_tag(gamma)})


def cmyk_profile(lab_of_corners: Floats) -> bytes:
    """Of a press whose 16 solid overprints, (2, 2, 2, 2, 3) by C, M, Y and K, have these Lab colours."""
    scaled = (lab_of_corners + np.array([0, 128, 128])) * np.array([65280 / 100, 256, 256])  # Lab of version 2
    table = np.rint(scaled).astype(">u2").tobytes()
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel().tolist())
    lut = b"mft2" + bytes(4) + bytes((4, 3, 2, 0)) + identity + struct.pack(">HH", 2, 2)
    ramps = struct.pack(">HH", 0, 65535)
    return profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz_tag(D50), b"A2B0": lut + ramps * 4 + table + ramps * 3})


def profile(device: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    at = 132 + 12 * len(tags)
    table, data = len(tags).to_bytes(4), b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = bytes(4) + bytes(4) + b"\x02\x40\0\0" + device + space + connection + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", *np.rint(D50 * 65536).astype(int).tolist())
    whole = head.ljust(128, b"\0") + table + data
    return len(whole).to_bytes(4) + whole[4:]


def _xyz_tag(xyz: Floats) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *np.rint(xyz * 65536).astype(int).tolist())


def _gamma_tag(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
