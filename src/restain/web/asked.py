"""Numbers that an address or a form holds."""

from __future__ import annotations

import math
import re

from restain.web.faults import Fault


def whole(value: str) -> int:
    """A level, column or row of a tile.

    Raises:
        Fault: 404, if it is none.
    """
    if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        raise Fault(404, "fault.no_tile")
    return int(value)


def number(value: str) -> float:
    """A finite number below 1e9.

    Raises:
        Fault: 400, if it is none.
    """
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not abs(found) < 1e9:
        raise Fault(400, "fault.number")
    return found
