"""Records of tiles in one growing file: append-only, each with a checksum."""

from __future__ import annotations

import os
import struct
import zlib
from typing import IO

import numpy as np

# Tile index, content and payload bytes; then the CRC-32 of these and the payload.
_HEAD = struct.Struct("<IBI")
_CRC = struct.Struct("<I")
MISSING, TILE, BLANK, HOLE = range(4)
"""What a store holds of a tile."""


class RecordIndex:
    """Content, position and length of the latest record of each tile; ``end`` is where the next record begins."""

    def __init__(self, count: int) -> None:
        self.content = np.zeros(count, np.uint8)
        self._start = np.zeros(count, np.int64)
        self._length = np.zeros(count, np.uint32)
        self.end = 0

    def add(self, index: int, content: int, length: int) -> None:
        self._start[index], self._length[index] = self.end + _HEAD.size, length
        self.content[index] = content
        self.end += _HEAD.size + length + _CRC.size

    def scan(self, file: IO[bytes], *, check: bool) -> None:
        """Add the records from ``end`` on, up to the first that is torn or, with ``check``, damaged."""
        left = file.seek(0, os.SEEK_END) - self.end
        file.seek(self.end)
        while left >= _HEAD.size + _CRC.size:
            index, content, length = _HEAD.unpack(file.read(_HEAD.size))
            left -= _HEAD.size + length + _CRC.size
            if left < 0 or index >= self.content.size or content not in (TILE, BLANK, HOLE):
                return
            if not check:
                file.seek(length + _CRC.size, os.SEEK_CUR)
            elif not _intact(index, content, file.read(length + _CRC.size), length):
                return
            self.add(index, content, length)

    def place(self, index: int) -> tuple[int, int, int]:
        """Content, position and length of a tile's record."""
        return int(self.content[index]), int(self._start[index]), int(self._length[index])

    @staticmethod
    def payload(file: IO[bytes], index: int, place: tuple[int, int, int]) -> bytes | None:
        """The payload at a ``place``; None if its checksum is wrong."""
        content, start, length = place
        file.seek(start)
        body = file.read(length + _CRC.size)
        return body[:length] if _intact(index, content, body, length) else None


def _intact(index: int, content: int, body: bytes, length: int) -> bool:
    return len(body) == length + _CRC.size and _CRC.unpack(body[length:])[0] == _checksum(index, content, body[:length])


def _checksum(index: int, content: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_HEAD.pack(index, content, len(payload))))


def record_of(index: int, content: int, payload: bytes) -> bytes:
    """The bytes of a tile's record."""
    return _HEAD.pack(index, content, len(payload)) + payload + _CRC.pack(_checksum(index, content, payload))
