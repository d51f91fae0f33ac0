"""Delays that grow with every failed sign-in."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

FREE = 5
"""Failures in a row that nobody has to wait for: typing errors."""
LONGEST = {"name": 60.0, "address": 900.0}
"""Seconds of the longest delay. Of a name it is short, since others can cause it to keep somebody out."""
FORGOTTEN = 3600.0
"""Seconds after the last failure."""
MOST = 10_000
"""Names and addresses that are remembered; those that failed longest ago go first."""


class Throttle:
    """Counts failures by name and by address, in memory. An attempt counts as failed until it has succeeded.

    So of many attempts at once no more are tried than one after another.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def attempt(self, name: str, address: str) -> int:
        """Seconds to wait before another attempt; 0: this one may go on, and counts."""
        now, keys = self._clock(), self._keys(name, address)
        with self._lock:
            wait = max(self._until(key) - now for key in keys)
            if wait > 0:
                return math.ceil(wait)
            for key in keys:
                count, last = self._failed.pop(key, (0, now))
                self._failed[key] = (1 if now - last > FORGOTTEN else count + 1), now
            while len(self._failed) > MOST:
                self._failed.popitem(last=False)
        return 0

    def succeeded(self, name: str, address: str) -> None:
        """The last attempt was none of a guesser. Others' failures from the same address stay."""
        name_key, address_key = self._keys(name, address)
        with self._lock:
            self._failed.pop(name_key, None)
            if address_key in self._failed:
                count, last = self._failed[address_key]
                self._failed[address_key] = max(0, count - 1), last

    def __len__(self) -> int:
        return len(self._failed)

    def _until(self, key: tuple[str, str]) -> float:
        count, last = self._failed.get(key, (0, -math.inf))
        if count < FREE:
            return -math.inf
        return last + min(LONGEST[key[0]], 2.0 ** min(count - FREE, 20))

    def _keys(self, name: str, address: str) -> Iterable[tuple[str, str]]:
        return ("name", name), ("address", neighbourhood(address))


def neighbourhood(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one, all of which a single machine can use."""
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
