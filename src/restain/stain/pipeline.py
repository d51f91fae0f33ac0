"""Reading, computing and writing in parallel: two threads read ahead, one writes, the caller computes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")
Made = TypeVar("Made")
PREPARED, STAINED = 60, 940
"""Thousandths of a job's progress at which preparation and staining end; then files are written."""


@dataclass
class Seconds:
    """``network``, ``blocks`` (reading, network and writing in parallel) and ``all`` are wall time; ``reading`` and ``writing`` are
    CPU time of their threads.
    """

    reading: float = 0.0
    network: float = 0.0
    writing: float = 0.0
    blocks: float = 0.0
    all: float = 0.0


@dataclass
class Pipeline(Generic[Item, Read, Made]):
    """Items through three steps: ``read`` on several threads, ``work`` on batches on the calling thread, ``keep`` on one thread in
    order. ``ahead``: items read in advance, and results that wait to be kept, which bounds the memory.
    """

    read: Callable[[Item], Read]
    work: Callable[[Sequence[Item], Sequence[Read]], Sequence[Made]]
    keep: Callable[[Item, Made], None]
    batch: int = 1
    readers: int = 2
    ahead: int = 2
    seconds: Seconds = field(default_factory=Seconds)

    def run(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield each item when it is kept. An exception of any step ends the run."""
        began = time.perf_counter()
        reading, writing = ThreadPoolExecutor(self.readers), ThreadPoolExecutor(1)
        try:
            yield from self._run(iter(items), reading, writing)
        finally:
            reading.shutdown(cancel_futures=True)
            writing.shutdown(cancel_futures=True)
            self.seconds.blocks += time.perf_counter() - began

    def _run(self, items: Iterator[Item], reading: ThreadPoolExecutor, writing: ThreadPoolExecutor) -> Iterator[Item]:
        waiting: deque[tuple[Item, Future[tuple[Read, float]]]] = deque()
        written: deque[tuple[Item, Future[float]]] = deque()

        def read_on() -> None:
            wanted = self.batch * (1 + self.ahead) - len(waiting)
            waiting.extend((item, reading.submit(_timed, self.read, item)) for item in islice(items, wanted))

        read_on()
        while waiting:
            group = [waiting.popleft() for _ in range(min(self.batch, len(waiting)))]
            pixels = []
            for _, future in group:
                one, spent = future.result()
                pixels.append(one)
                self.seconds.reading += spent
            read_on()
            began = time.perf_counter()
            made = self.work([item for item, _ in group], pixels)
            self.seconds.network += time.perf_counter() - began
            for (item, _), result in zip(group, made, strict=True):
                written.append((item, writing.submit(_time_of, self.keep, item, result)))
            while len(written) > self.batch * self.ahead:
                yield self._settle(*written.popleft())
        while written:
            yield self._settle(*written.popleft())

    def _settle(self, item: Item, future: Future[float]) -> Item:
        self.seconds.writing += future.result()
        return item


def _timed(read: Callable[[Item], Read], item: Item) -> tuple[Read, float]:
    began = time.thread_time()
    result = read(item)
    return result, time.thread_time() - began


def _time_of(keep: Callable[[Item, Made], None], item: Item, made: Made) -> float:
    began = time.thread_time()
    keep(item, made)
    return time.thread_time() - began
