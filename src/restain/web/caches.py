"""Caches: open slides, encoded tiles, and facts of files. All are safe from many threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from restain import __version__
from restain.errors import RestainError
from restain.files import make_folder, whole_file


class Closable(Protocol):
    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)
Fact = TypeVar("Fact")


@dataclass
class _Entry(Generic[T]):
    handle: T
    weight: int
    users: int = 0
    stale: bool = False


class HandleCache(Generic[T]):
    """Open handles: at most ``max_handles`` of at most ``max_bytes`` together; the least recently used are closed.

    A handle in use is closed when its last user is done; until then both bounds can be exceeded.
    """

    def __init__(self, max_handles: int = 24, max_bytes: int = 512 << 20) -> None:
        self._max_handles, self._max_bytes = max_handles, max_bytes
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}

    @contextmanager
    def lease(self, key: str, opener: Callable[[], tuple[T, int]]) -> Iterator[T]:
        """The handle of ``key``; ``opener`` gives a handle and its bytes if none is open. Its exceptions pass through."""
        entry = self._acquire(key, opener)
        try:
            yield entry.handle
        finally:
            with self._lock:
                entry.users -= 1
                unused = entry.stale and entry.users == 0
            if unused:
                entry.handle.close()

    def _acquire(self, key: str, opener: Callable[[], tuple[T, int]]) -> _Entry[T]:
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
            # One step: between the two, another thread would open a second handle.
            with self._lock:
                self._opening.pop(key, None)
                self._entries[key] = entry
                unused = self._evict()
        for one in unused:
            one.handle.close()
        return entry

    def _known(self, key: str) -> _Entry[T] | None:
        if (entry := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            entry.users += 1
        return entry

    def _evict(self, keep: int = 1) -> list[_Entry[T]]:
        """Drop entries until the bounds hold; those without a user are to be closed."""
        dropped = []
        weight = sum(entry.weight for entry in self._entries.values())
        while len(self._entries) > keep and (
            not keep or len(self._entries) > self._max_handles or weight > self._max_bytes
        ):
            _, entry = self._entries.popitem(last=False)
            weight -= entry.weight
            entry.stale = True
            dropped.append(entry)
        return [entry for entry in dropped if entry.users == 0]

    def close(self) -> None:
        """Close all handles that are not in use; the others follow with their last user."""
        with self._lock:
            unused = self._evict(keep=0)
        for entry in unused:
            entry.handle.close()


class ByteCache:
    """Encoded tiles by key, at most ``max_bytes`` of them; the least recently used are dropped."""

    def __init__(self, max_bytes: int = 128 << 20) -> None:
        self._max_bytes, self._size = max_bytes, 0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[object, ...]) -> bytes | None:
        with self._lock:
            if (data := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
            return data

    def put(self, key: tuple[object, ...], data: bytes) -> None:
        with self._lock:
            self._size += len(data) - len(self._kept.pop(key, b""))
            self._kept[key] = data
            while self._size > self._max_bytes:
                self._size -= len(self._kept.popitem(last=False)[1])


class FactCache(Generic[Fact]):
    """Facts of files, read once for each key and stamp; kept in a JSON file between runs if there is one.

    ``kind`` is the type of a fact, for pydantic. A file of another version of restain is ignored, and so is a damaged one.
    """

    def __init__(self, kind: Any, file: Path | None) -> None:
        self._file, self._lock, self._changed = file, threading.Lock(), False
        self._form: TypeAdapter[tuple[str, dict[str, tuple[str, Fact]]]] = TypeAdapter(
            tuple[str, dict[str, tuple[str, kind]]]
        )
        self._known: dict[str, tuple[str, Fact]] = {}
        with suppress(OSError, ValueError):
            if file is None:
                return
            version, known = self._form.validate_json(file.read_bytes())
            self._known = known if version == __version__ else {}

    def get(self, key: str, stamp: str, read: Callable[[], Fact]) -> Fact:
        """The fact of ``key``; ``read`` gives it if it is not known for this stamp. Its exceptions pass through."""
        with self._lock:
            known = self._known.get(key)
        if known is None or known[0] != stamp:
            known = stamp, read()
            with self._lock:
                self._known[key], self._changed = known, True
        return known[1]

    def save(self, keep: Container[str]) -> None:
        """Write what has changed, without the keys that are not in ``keep``. A full disk costs time, not the facts."""
        with self._lock:
            gone = [key for key in self._known if key not in keep]
            if self._file is None or not (gone or self._changed):
                return
            for key in gone:
                del self._known[key]
            self._changed = False
            # A folder whose name is not text cannot be written as JSON.
            with suppress(OSError, RestainError, ValueError):
                data = self._form.dump_json((__version__, self._known))
                make_folder(self._file.parent)
                with whole_file(self._file) as partial:
                    partial.write_bytes(data)
