"""A network between clients and the server that can be broken on request: one TCP port before one socket of the server.

Every byte passes through one thread of this process. A fault holds for all connections of the port.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from chaos.nemesis import Fault

CHUNK_BYTES = 65_536
DELAY_SECONDS = 0.2
"""How long each answer waits under DELAY."""

READY_FOR_QUERY = b"Z\x00\x00\x00\x05"
HEAL_TIMEOUT_SECONDS = 10.0


class Proxy:
    """``port`` leads to the server's socket at ``socket_path``, which may come and go, or to a host and port."""

    def __init__(self, socket_path: str | tuple[str, int]) -> None:
        self._target = socket_path
        self.requests = self.answers = 0
        """Messages that clients have sent, and answers of the server that were complete."""
        self.cut_request: int | None = None
        """The number of a request that is reset instead of sent."""
        self.cut_answer: int | None = None
        """The number of an answer in whose place there is a reset."""
        self._fault: Fault | None = None
        self._links: set[_Connection] = set()
        self._healed = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port: int = self._run(self._listen())

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable&gssencmode=disable"

    def count_from_here(self, *, cut_request: int | None = None, cut_answer: int | None = None) -> None:
        """The next request and the next answer are number 1; at most one of them is cut."""
        self.requests = self.answers = 0
        self.cut_request, self.cut_answer = cut_request, cut_answer

    def break_by(self, fault: Fault) -> None:
        """The fault holds from now on, until another one or ``heal``."""
        self._run(self._set(fault))

    def heal(self) -> None:
        """New connections pass; those that were inside a black hole are reset, as a network would after a while."""
        self._run(self._set(None))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(HEAL_TIMEOUT_SECONDS)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(HEAL_TIMEOUT_SECONDS)

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _set(self, fault: Fault | None) -> None:
        before, self._fault = self._fault, fault
        if fault in (Fault.RESET, Fault.REFUSE) or before is Fault.BLACK_HOLE:
            for link in list(self._links):
                link.reset()
        if fault is Fault.RESET:
            self._fault = None
        if fault is None:
            self._healed.set()
            self._healed = asyncio.Event()

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.reset()
        for _ in range(100):
            if not self._links:
                break
            await asyncio.sleep(0.01)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.REFUSE:
            _abort(writer)
            return
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            _abort(writer)
            return
        link = _Connection(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pump(reader, server_writer, self._request), self._pump(server_reader, writer, self._answer)
            )
        finally:
            self._links.discard(link)
            link.reset()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, str):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        arrive: Callable[[bytes], Coroutine[Any, Any, bool]],
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                if not await arrive(data):
                    break
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            _abort(sink)

    async def _request(self, data: bytes) -> bool:
        """Whether the request may pass."""
        self.requests += 1
        if self.requests == self.cut_request or self._fault is Fault.DROP:
            return False
        while self._fault is Fault.BLACK_HOLE:
            await self._healed.wait()
        return True

    async def _answer(self, data: bytes) -> bool:
        """Whether the answer may pass."""
        if READY_FOR_QUERY in data:
            self.answers += 1
            if self.answers == self.cut_answer or self._fault is Fault.CUT:
                return False
        if self._fault is Fault.DELAY:
            await asyncio.sleep(DELAY_SECONDS)
        while self._fault is Fault.BLACK_HOLE:
            await self._healed.wait()
        return True


class _Connection:
    """Both ends of one connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)

    def reset(self) -> None:
        for end in self._ends:
            _abort(end)


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
