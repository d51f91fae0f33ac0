"""Handles are shared, bounded, and never closed in use."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restain.web.caches import ByteCache, HandleCache


class Handle:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def opened(pool: HandleCache[Handle], key: str, weight: int = 1) -> Handle:
    with pool.lease(key, lambda: (Handle(), weight)) as handle:
        assert not handle.closed
        return handle


def test_the_least_recently_used_is_closed():
    pool: HandleCache[Handle] = HandleCache(max_handles=2)
    a, b = opened(pool, "a"), opened(pool, "b")
    assert opened(pool, "a") is a
    opened(pool, "c")
    assert (a.closed, b.closed) == (False, True)


def test_heavy_handles_are_closed_before_there_are_many():
    pool: HandleCache[Handle] = HandleCache(max_handles=9, max_bytes=10)
    a, b = opened(pool, "a", 6), opened(pool, "b", 6)
    assert (a.closed, b.closed) == (True, False)


def test_a_handle_in_use_is_closed_by_its_last_user():
    pool: HandleCache[Handle] = HandleCache(max_handles=1)
    with pool.lease("a", lambda: (Handle(), 1)) as a:
        opened(pool, "b")
        assert not a.closed
    assert a.closed


def test_many_threads_open_a_slide_once():
    pool: HandleCache[Handle] = HandleCache()
    made: list[Handle] = []

    def opener() -> tuple[Handle, int]:
        time.sleep(0.02)
        made.append(Handle())
        return made[-1], 1

    def use() -> None:
        with pool.lease("a", opener):
            pass

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_cannot_be_opened_can_be_tried_again():
    pool: HandleCache[Handle] = HandleCache()

    def broken() -> tuple[Handle, int]:
        raise OSError

    with pytest.raises(OSError), pool.lease("a", broken):  # noqa: PT011 (any will do)
        pass
    assert not opened(pool, "a").closed


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=40)), max_size=60))
def test_a_cache_gives_back_what_was_put_last_and_stays_small(entries: list[tuple[int, bytes]]):
    cache = ByteCache(max_bytes=100)
    for key, data in entries:
        cache.put((key,), data)
        assert cache.get((key,)) == data
    assert sum(len(cache.get((key,)) or b"") for key in range(10)) <= 100
