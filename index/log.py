"""Reads the write-ahead log as SQLite would recover it. SQLite itself stops at the first bad frame without an error.

Format: https://www.sqlite.org/fileformat.html#the_write_ahead_log. Each frame, a page with a header, carries the checksum of
all before it: for pairs of 32-bit words, a += x + b; b += y + a. That is linear modulo 2^32, so the words of a frame have fixed
weights, and many frames are summed at once.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

_HEADER: Final = struct.Struct(">IIIIII")
_CHECKSUM: Final = struct.Struct(">II")
_FRAME: Final = struct.Struct(">II8sII")
"""Page number, size of the database after a commit or 0, salts, checksum."""
_MAGIC: Final = 0x377F0682
"""The last bit says that words are big-endian."""
_HEADER_BYTES: Final = 32
_CHUNK: Final = 256
_HEAD_PAGES: Final = 16
"""The roots of all tables lie on them, and all of the table `about`."""
_PAGE: Final = 4096


@dataclass(frozen=True)
class Log:
    """What SQLite would recover: `frames`, up to the last commit before anything that is wrong.

    `salts` name the log: SQLite changes them when it starts to write it anew. `head` has the first pages of the database as of
    the last of the frames, by number.
    """

    salts: bytes = b""
    frames: int = 0
    num_bytes: int = 0
    """Of the header and the frames."""
    has_more: bool = False
    """Whether something stands behind them that a commit seems to have written."""
    head: Mapping[int, bytes] = field(default_factory=dict, repr=False)


def scan(path: Path) -> Log | None:
    """The log at `path`; None if there is none, or it is empty. Raises OSError if it cannot be read."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return Log() if header else None
        magic, _, page_size, _, _, _ = _HEADER.unpack_from(header)
        words = np.dtype(">u4" if magic & 1 else "<u4")
        known = magic & ~1 == _MAGIC and page_size == _PAGE
        if not known or _sum(np.frombuffer(header, words)[:6]) != _CHECKSUM.unpack_from(header, 24):
            return Log(has_more=True)
        return _frames(file, header[16:24], _CHECKSUM.unpack_from(header, 24), words)


def first_pages(path: Path, log: Log | None) -> sqlite3.Connection:
    """The table `about` of the index at `path`, with the frames of `log` if any, in memory: SQLite opens no file for it.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        image = bytearray(file.read(_HEAD_PAGES * _PAGE))
    for number, page in sorted(log.head.items() if log else ()):
        image.extend(bytes(max(0, number * _PAGE - len(image))))
        image[(number - 1) * _PAGE : number * _PAGE] = page
    image[18:20] = b"\1\1"  # no write-ahead log, which memory cannot have
    image[28:32] = (len(image) // _PAGE).to_bytes(4, "big")
    connection = sqlite3.connect(":memory:")
    connection.deserialize(bytes(image))
    return connection


def _frames(file: BinaryIO, salts: bytes, state: tuple[int, int], words: np.dtype[Any]) -> Log:
    """The frames behind a valid header whose checksum is `state`."""
    frames, has_more, is_whole = 0, False, True
    head, uncommitted = dict[int, bytes](), dict[int, bytes]()
    for number, (frame, (a, b)) in enumerate(_sums(file, words), start=1):
        page, size, found, *checksum = _FRAME.unpack_from(frame)
        if is_whole:
            state = _after(state, (a, b))
            is_whole = found == salts and page > 0 and [*state] == checksum
        if not is_whole:
            has_more |= found == salts and size > 0
            continue
        if page <= _HEAD_PAGES:
            uncommitted[page] = frame[_FRAME.size :]
        if size:
            frames = number
            head |= uncommitted
            uncommitted.clear()
    return Log(salts, frames, _HEADER_BYTES + frames * (_FRAME.size + _PAGE), has_more, head)


def _sums(file: BinaryIO, words: np.dtype[Any]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Every complete frame, and what its words add to the checksum."""
    frame_bytes = _FRAME.size + _PAGE
    while data := file.read(_CHUNK * frame_bytes):
        count = len(data) // frame_bytes
        table = np.frombuffer(data, np.uint8, count * frame_bytes).reshape(count, frame_bytes)
        summed = np.concatenate([table[:, :8], table[:, _FRAME.size :]], axis=1).view(words)
        sums = summed.astype(np.uint32) @ _weights(summed.shape[1])
        for row, (a, b) in enumerate(sums.tolist()):
            yield data[row * frame_bytes : (row + 1) * frame_bytes], (a, b)


def _sum(words: npt.NDArray[Any]) -> tuple[int, int]:
    a, b = (words.astype(np.uint32) @ _weights(len(words))).tolist()
    return a, b


def _after(state: tuple[int, int], added: tuple[int, int]) -> tuple[int, int]:
    """The checksum behind a frame: the one before it, multiplied for every pair of words, and what the frame adds."""
    (p, q), (r, s) = _power((_PAGE + 8) // 8)
    a, b = state
    return (p * a + q * b + added[0]) & 0xFFFFFFFF, (r * a + s * b + added[1]) & 0xFFFFFFFF


@cache
def _weights(num_words: int) -> npt.NDArray[np.uint32]:
    """What each word adds to a and to b (num_words, 2): a pair x, y adds x, x + y, multiplied once for every pair after it."""
    weights = np.empty((num_words, 2), np.uint32)
    for pair in range(num_words // 2):
        (p, q), (r, s) = _power(num_words // 2 - 1 - pair)
        weights[2 * pair] = (p + q) & 0xFFFFFFFF, (r + s) & 0xFFFFFFFF
        weights[2 * pair + 1] = q, s
    return weights


@cache
def _power(pairs: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The matrix ((1, 1), (1, 2)) to the power of `pairs`, modulo 2^32."""
    p, q, r, s = 1, 0, 0, 1
    for _ in range(pairs):
        p, q, r, s = p + r, q + s, p + 2 * r, q + 2 * s
    return (p & 0xFFFFFFFF, q & 0xFFFFFFFF), (r & 0xFFFFFFFF, s & 0xFFFFFFFF)


def rewrite(path: Path, num_bytes: int) -> None:
    """Writes the first bytes of the log once more, cuts off the rest, and syncs it. Raises OSError.

    After a failed sync, Linux marks the pages as clean: they are read back from memory, but no later sync writes them. What
    SQLite recovers from such a log, and everything committed after it, would be lost in a power cut.
    """
    with path.open("r+b", buffering=0) as log:
        left = num_bytes
        while data := log.read(min(1 << 20, left)):
            log.seek(-len(data), os.SEEK_CUR)
            log.write(data)
            left -= len(data)
        os.ftruncate(log.fileno(), num_bytes)
        os.fsync(log.fileno())
