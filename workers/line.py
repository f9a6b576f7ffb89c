"""Where a chunk's scans are under way at the same time: on the device, at the writers of pictures, at the ledger.

While the results of one slice of a chunk are looked at, the next is computed; while one chunk is completed, the next is
under way: the device is never waited for and never waits.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

AT_A_TIME = 2  # slices at the device; one more lies ready


class Line:
    """The threads of one ring's work: `keepers` write pictures, `writers` of them."""

    def __init__(self, writers: int) -> None:
        self.keepers = ThreadPoolExecutor(writers, "keep")
        self._device, self._room = ThreadPoolExecutor(AT_A_TIME, "device"), BoundedSemaphore(AT_A_TIME + 1)
        self._ledger, self._ending = ThreadPoolExecutor(1, "ledger"), Future[None]()
        self._ending.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for threads in (self._device, self.keepers, self._ledger):
            threads.shutdown()

    def offer(self, does: Callable[P, R], *args: P.args, **named: P.kwargs) -> Future[R]:
        """Have the device's thread do something; waits while enough lies ready."""
        self._room.acquire()
        future = self._device.submit(does, *args, **named)
        future.add_done_callback(lambda done: self._room.release())
        return future

    def end_with(self, does: Callable[P, None], *args: P.args, **named: P.kwargs) -> None:
        """Have a chunk ended while the next one is under way; the one before must be `settled`."""
        self._ending = self._ledger.submit(does, *args, **named)

    def settle(self) -> None:
        """Wait for the end of the chunk before; raises what that raised."""
        self._ending.result()
