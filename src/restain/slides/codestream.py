"""What a frame's own codestream says of its colours, where the label beside it may be wrong."""

from __future__ import annotations

import re

JPEG = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
"""Transfer syntaxes of baseline and extended JPEG."""
JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
JPEG_XL = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (110, 111, 112))


def colours_of(frame: bytes, syntax: str, label: str) -> str | None:
    """The photometric interpretation by which an encoded frame is decoded to RGB, or None where nothing tells it.

    ``syntax`` is the UID of the transfer syntax, ``label`` the interpretation that the data set states.
    """
    if label.startswith("MONOCHROME") or syntax in JPEG_XL:
        return label
    if syntax in JPEG:
        # A decoder for YBR follows the markers and component names itself.
        return "YBR_FULL_422" if label == "RGB" and jpeg_is_ybr(frame) else label
    if syntax in JPEG_2000 and jpeg_2000_is_transformed(frame):
        return label
    # Nothing undoes a transform that is not part of the codestream.
    return "RGB" if label == "RGB" else None


def jpeg_is_ybr(frame: bytes) -> bool:
    """Whether a JPEG says by its markers (JFIF, Adobe) or by subsampling that its components are Y, Cb and Cr."""
    at, jfif, adobe = 2, False, None
    while at + 4 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        body = frame[at + 4 : at + 2 + length]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xE0 and body.startswith(b"JFIF\0"):
            jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) > 11:
            adobe = body[11]
        elif marker in (0xC0, 0xC1, 0xC2):
            names, sampling = body[6::3], body[7::3]
            if adobe is not None:
                return adobe == 1
            return names != b"RGB" and (jfif or len(set(sampling)) > 1)
        at += 2 + length
    return False


def jpeg_2000_is_transformed(frame: bytes) -> bool:
    """Whether a JPEG 2000 codestream has the multiple component transform, which its decoder undoes."""
    start = frame.find(b"\xff\x4f\xff\x51")
    coding = re.compile(rb"\xff\x52..(.)(.)..(.)", re.DOTALL).search(frame, max(start, 0))
    return coding is not None and coding[3] != b"\0"
