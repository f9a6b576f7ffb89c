"""A small TCP proxy before a Unix socket, so that a connection can be reset, go half-open, or be slow."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
BLOCK = 2**16
NO_LINGER = struct.pack("ii", 1, 0)  # closing sends RST (socket(7), SO_LINGER)


class Proxy:
    """Listens on a port of the loopback and hands every byte on to `target`, until it is told to be unkind."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._pairs: set[_Pair] = set()
        self._is_deaf = False
        self._delay = 0.0
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen; `port` is known from now on."""
        self._thread.start()
        self._wait(self._listen())

    def stop(self) -> None:
        """Close everything."""
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def reset(self) -> int:
        """Reset every connection, as a rebooted firewall does; how many there were."""
        return self._wait(self._reset())

    def deafen(self) -> int:
        """Swallow all that is sent over the connections that are open now: they stay up and are dead, while new ones
        work. How many there are."""
        return self._wait(self._deafen(everybody=False))

    def part(self) -> int:
        """The same, and new ones die likewise: the network is parted."""
        return self._wait(self._deafen(everybody=True))

    def mend(self) -> int:
        """The end of `deafen` and `part`: connections that are dead are reset."""
        return self._wait(self._mend())

    def delay(self, seconds: float) -> None:
        """Hold back every answer for so long; 0 ends it."""
        self._delay = seconds

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        done: Future[T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return done.result(30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._reset()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _reset(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    async def _deafen(self, *, everybody: bool) -> int:
        self._is_deaf = everybody
        for pair in self._pairs:
            pair.is_deaf = True
        return len(self._pairs)

    async def _mend(self) -> int:
        self._is_deaf = False
        deaf = [pair for pair in self._pairs if pair.is_deaf]
        for pair in deaf:
            pair.reset()
        return len(deaf)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_unix_connection(self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, there[1], is_deaf=self._is_deaf)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                pair.carry(reader, there[1], lambda: 0.0), pair.carry(there[0], writer, lambda: self._delay)
            )
        finally:
            self._pairs.discard(pair)
            pair.close()


class _Pair:
    """One connection and its counterpart at the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, *, is_deaf: bool) -> None:
        self.client, self.server, self.is_deaf = client, server, is_deaf

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: Callable[[], float]) -> None:
        try:
            while block := await source.read(BLOCK):
                if seconds := delay():
                    await asyncio.sleep(seconds)
                if not self.is_deaf:
                    sink.write(block)
                    await sink.drain()
            if not self.is_deaf:
                sink.close()
        except OSError:
            self.close()

    def reset(self) -> None:
        sock: socket.socket | None = self.client.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.close()

    def close(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()
