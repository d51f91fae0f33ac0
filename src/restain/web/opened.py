"""Slides kept open between requests: a bounded number, in bounded memory, safe from many threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)


@dataclass
class _Entry(Generic[T]):
    handle: T
    weight: int
    users: int = 0
    stale: bool = False


class Opened(Generic[T]):
    """At most ``most`` handles that weigh at most ``heaviest`` together (bytes held), least recently used first to go.

    A handle in use is never closed: it goes when its last user is done, so both bounds can be passed for that long.
    """

    def __init__(self, most: int = 24, heaviest: int = 512 << 20) -> None:
        self._most, self._heaviest = most, heaviest
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}

    @contextmanager
    def lease(self, key: str, opener: Callable[[], tuple[T, int]]) -> Iterator[T]:
        """The handle of ``key``; ``opener`` gives one and its weight where none is open. Its exceptions pass through."""
        entry = self._taken(key, opener)
        try:
            yield entry.handle
        finally:
            with self._lock:
                entry.users -= 1
                gone = entry.stale and entry.users == 0
            if gone:
                entry.handle.close()

    def _taken(self, key: str, opener: Callable[[], tuple[T, int]]) -> _Entry[T]:
        with self._lock:
            if (entry := self._known(key)) is not None:
                return entry
            turn = self._opening.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                if (entry := self._known(key)) is not None:
                    return entry
            try:
                handle, weight = opener()
            except BaseException:
                with self._lock:
                    self._opening.pop(key, None)
                raise
            entry = _Entry(handle, weight, users=1)
            # At once: between the two another thread would open a second handle.
            with self._lock:
                self._opening.pop(key, None)
                self._entries[key] = entry
                dropped = self._drop()
        for one in dropped:
            one.handle.close()
        return entry

    def _known(self, key: str) -> _Entry[T] | None:
        if (entry := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            entry.users += 1
        return entry

    def _drop(self) -> list[_Entry[T]]:
        idle = []
        weight = sum(entry.weight for entry in self._entries.values())
        while len(self._entries) > 1 and (len(self._entries) > self._most or weight > self._heaviest):
            _, entry = self._entries.popitem(last=False)
            weight -= entry.weight
            entry.stale = True
            if entry.users == 0:
                idle.append(entry)
        return idle

    def close(self) -> None:
        """Close what nobody uses; the rest goes with its last user."""
        with self._lock:
            entries = list(self._entries.values())
            self._entries.clear()
            for entry in entries:
                entry.stale = True
            idle = [entry for entry in entries if entry.users == 0]
        for entry in idle:
            entry.handle.close()


class ByteCache:
    """Encoded tiles by key, at most ``heaviest`` bytes of them, least recently used first to go."""

    def __init__(self, heaviest: int = 128 << 20) -> None:
        self._heaviest, self._weight = heaviest, 0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> bytes | None:
        with self._lock:
            if (data := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return data

    def put(self, key: tuple[object, ...], data: bytes) -> None:
        with self._lock:
            if (old := self._kept.pop(key, None)) is not None:
                self._weight -= len(old)
            self._kept[key] = data
            self._weight += len(data)
            while self._weight > self._heaviest:
                _, gone = self._kept.popitem(last=False)
                self._weight -= len(gone)
