"""How a phantom slide is asked for in words: sizes, mixtures and shifts as text."""

from __future__ import annotations

import re

from restain.errors import RestainError
from restain.geometry import Size
from restain.her2 import Her2Level


def parse_size(text: str) -> Size:
    """``20000x16000`` as width and height in px.

    Raises:
        RestainError: if it is not two positive whole numbers.
    """
    match = re.fullmatch(r"([1-9]\d{0,6})\s*[x×]\s*([1-9]\d{0,6})", text.strip())
    if match is None:
        raise RestainError(f"'{text}' is not a size; write width and height in px, for example 20000x16000.")
    return Size(int(match[1]), int(match[2]))


def parse_mixture(text: str) -> dict[Her2Level, float]:
    """``0=0.3,2+=0.7`` as a share per level.

    Raises:
        RestainError: if a part is no level with a share, or a level occurs twice.
    """
    found: dict[Her2Level, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        level = Her2Level.parse(name.strip())
        try:
            value = float(share)
        except ValueError:
            raise RestainError(f"'{part}' is not a share of a level; write for example 0=0.3,2+=0.7.") from None
        if level in found:
            raise RestainError(f"The mixture '{text}' names level {level.text} twice.")
        found[level] = value
    return found


def parse_pair(text: str, option: str) -> tuple[float, float]:
    """``120,-80`` as two numbers.

    Raises:
        RestainError: if it is not two numbers; the sentence names ``option``.
    """
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise RestainError(f"{option} takes two numbers, x,y, not '{text}'.") from None
    return x, y


__all__ = ["parse_mixture", "parse_pair", "parse_size"]
