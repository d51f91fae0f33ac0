"""Rate limit of sign-ins: delays that grow with every failure."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

FREE_FAILURES = 5
"""Failures in a row without a delay: typing errors."""
FREE_AT_BLOCKED_ADDRESS = 2
"""Attempts of a name that an address with too many failures still allows."""
MAX_DELAY_S = {"name": 60.0, "address": 900.0}
"""The delay of a name is short, since others can cause it to lock somebody out."""
FORGET_AFTER_S = 3600.0
"""After the last failure."""
MAX_ENTRIES = 10_000
"""Names and addresses in memory; those that failed longest ago are dropped."""


class RateLimit:
    """Counts failures by name and by address, in memory.

    An attempt counts as failed until it succeeds, so parallel attempts gain nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()

    def attempt(self, name: str, address: str) -> int:
        """Seconds to wait before another attempt; 0 if this one is allowed, which then counts."""
        now, keys = self._clock(), _keys(name, address)
        with self._lock:
            name_key, address_key = keys
            # A name that hardly failed may try: the address can be that of a whole hospital.
            tried = self._failed.get(name_key, (0, now))[0] >= FREE_AT_BLOCKED_ADDRESS
            wait = max(self._end(key) - now for key in ((name_key, address_key) if tried else (name_key,)))
            if wait > 0:
                return math.ceil(wait)
            for key in keys:
                count, last = self._failed.pop(key, (0, now))
                self._failed[key] = (1 if now - last > FORGET_AFTER_S else count + 1), now
            while len(self._failed) > MAX_ENTRIES:
                self._failed.popitem(last=False)
        return 0

    def succeeded(self, name: str, address: str) -> None:
        """Take back the last attempt. Failures of others from the same address stay."""
        name_key, address_key = _keys(name, address)
        with self._lock:
            self._failed.pop(name_key, None)
            if address_key in self._failed:
                count, last = self._failed[address_key]
                self._failed[address_key] = max(0, count - 1), last

    def __len__(self) -> int:
        return len(self._failed)

    def _end(self, key: tuple[str, str]) -> float:
        count, last = self._failed.get(key, (0, -math.inf))
        if count < FREE_FAILURES:
            return -math.inf
        return last + min(MAX_DELAY_S[key[0]], 2.0 ** min(count - FREE_FAILURES, 20))


def _keys(name: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("name", name), ("address", network_of(address))


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 network of an IPv6 one, since one machine can use all of it."""
    try:
        parsed = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
