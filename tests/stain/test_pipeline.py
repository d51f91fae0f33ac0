import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restain.stain.pipeline import Pipeline


def double(_: Sequence[int], values: Sequence[int]) -> list[int]:
    return [2 * value for value in values]


@given(st.integers(0, 30), st.integers(1, 5), st.integers(1, 3), st.integers(1, 4))
@settings(deadline=None)
def test_every_item_goes_through_in_order(count: int, batch: int, readers: int, ahead: int) -> None:
    kept: list[tuple[int, int]] = []
    pipeline = Pipeline(
        lambda item: item + 100, double, lambda item, made: kept.append((item, made)), batch, readers, ahead
    )
    assert list(pipeline.run(range(count))) == list(range(count))
    assert kept == [(item, 2 * (item + 100)) for item in range(count)]


def test_no_more_is_held_than_was_agreed() -> None:
    held, most, lock = 0, 0, threading.Lock()

    def change(by: int) -> None:
        nonlocal held, most
        with lock:
            held += by
            most = max(most, held)

    def read(item: int) -> int:
        change(1)
        return item

    def keep(item: int, made: int) -> None:
        time.sleep(0.002)
        change(-1)

    list(Pipeline(read, double, keep, batch=2, ahead=2).run(range(40)))
    assert held == 0
    assert most <= 2 * (1 + 2) + 2 + 2 * 2 + 1


@pytest.mark.parametrize("step", ["read", "work", "keep"])
def test_what_a_step_raises_comes_out_and_nothing_more_is_begun(step: str) -> None:
    begun: list[int] = []

    def fail(where: str, item: int) -> None:
        if where == step and item == 5:
            raise OSError("broken")

    def read(item: int) -> int:
        begun.append(item)
        fail("read", item)
        return item

    def work(items: Sequence[int], values: Sequence[int]) -> list[int]:
        fail("work", items[0])
        return list(values)

    running = set(threading.enumerate())
    with pytest.raises(OSError, match="broken"):
        list(Pipeline(read, work, lambda item, _: fail("keep", item)).run(range(1000)))
    assert len(begun) < 20
    assert set(threading.enumerate()) <= running


def test_steps_overlap() -> None:
    """Each waits for another to be under way at the same time, which one after the other never are."""
    reading, writing = threading.Barrier(2), threading.Barrier(2)

    def read(item: int) -> int:
        if item >= 1:
            reading.wait(timeout=5)
        return item

    def work(items: Sequence[int], values: Sequence[int]) -> list[int]:
        if items[0] < 3:
            reading.wait(timeout=5)
        if items[0] >= 1:
            writing.wait(timeout=5)
        return list(values)

    def keep(item: int, _: int) -> None:
        if item < 3:
            writing.wait(timeout=5)

    assert list(Pipeline(read, work, keep, readers=1).run(range(4))) == [0, 1, 2, 3]
