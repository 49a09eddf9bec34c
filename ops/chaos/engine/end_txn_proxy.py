"""A proxy between an app's clients and a broker of its own, which holds one EndTxn back and lets it go later.

What a network can do to the request that decides a transaction: bring it, or its answer, after the client has given up,
or bring a first copy after the client's second. Every other request passes at once. The workers come here because the
broker advertises this address to them (`own_cluster(proxied=True)`); both ends are TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from ops.chaos.engine.cluster import Cluster

END_TXN = 26  # api key
FLEXIBLE_FROM = 3  # version of EndTxn whose body ends with a tag buffer
_SIZE = struct.Struct(">i")
_HEADER = struct.Struct(">hhi")  # api key, api version, correlation id


class Hold(Enum):
    """What is held, and what the client sees of it."""

    REQUEST = "the request stays on its way, as does all that comes after it on its connection"
    ANSWER = "the broker has executed it, the answer stays on its way"
    CUT = "the request stays on its way, and the client sees its connection break"


@dataclass(slots=True)
class Held:
    """One EndTxn that is, or will be, held back."""

    transactional_id: str  # or what it begins with
    how: Hold
    passes: int = 0  # so many EndTxn of this id go by before
    reached: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)  # released, and answered by the broker
    _gate: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let it go on."""
        self._gate.set()

    async def opened(self) -> None:
        """Wait until it is released."""
        await asyncio.to_thread(self._gate.wait)


class EndTxnProxy:
    """Frames in both directions, one asyncio loop in a thread of its own; `hold` may be called from any thread."""

    def __init__(self, cluster: Cluster) -> None:
        assert cluster.proxied is not None
        assert cluster.home is not None
        self._listen, self._broker = cluster.proxied
        home = cluster.home
        self._server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._server_tls.load_cert_chain(home.cert("kafka"), home.key("kafka"))
        self._client_tls = ssl.create_default_context(cafile=cluster.tls["ca"])
        self._client_tls.load_cert_chain(cluster.tls["cert"], cluster.tls["key"])
        self._wanted: list[Held] = []
        self._all: list[Held] = []
        self._connections: set[asyncio.Task[None]] = set()
        self.ready = threading.Event()
        self._stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def hold(self, transactional_id: str, how: Hold, passes: int = 0) -> Held:
        """Hold the next EndTxn that commits a transaction of an id that begins so, after `passes` others."""
        held = Held(transactional_id, how, passes)
        with self._lock:
            self._wanted.append(held)
            self._all.append(held)
        return held

    async def serve(self) -> None:
        """Accept connections until `stop`."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._listen, ssl=self._server_tls)
        self._loop = asyncio.get_running_loop()
        self.ready.set()
        await asyncio.to_thread(self._stopping.wait)
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def stop(self) -> None:
        """Let go of everything that is held, and end."""
        with self._lock:
            for held in self._all:
                held.release()
        self._stopping.set()

    def cut_all(self) -> None:
        """Break every connection there is; new ones are welcome."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._connections])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopping.is_set():
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve_client(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker = await asyncio.open_connection("127.0.0.1", self._broker, ssl=self._client_tls)
        except OSError:  # the broker is away
            return
        await _Connection(self.match, reader, writer, *broker).run()

    def match(self, frame: bytes) -> tuple[Held | None, int]:
        """The hold that this request falls under, if any, and its correlation id."""
        key, version, correlation = _HEADER.unpack_from(frame, _SIZE.size)
        if key != END_TXN or not frame[-2 if version >= FLEXIBLE_FROM else -1]:  # an abort
            return None, correlation
        with self._lock:
            for held in self._wanted:
                if held.transactional_id.encode() not in frame:
                    continue
                if held.passes:
                    held.passes -= 1
                    continue
                self._wanted.remove(held)
                return held, correlation
        return None, correlation


@dataclass(slots=True)
class _Connection:
    """One client's, and ours to the broker for it, which outlives the client's while an answer is awaited."""

    match: Callable[[bytes], tuple[Held | None, int]]
    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_broker: asyncio.StreamReader
    to_broker: asyncio.StreamWriter
    waiting: dict[int, Held] = field(default_factory=dict)  # by correlation id: answers that are held, or awaited

    async def run(self) -> None:
        upward, downward = asyncio.create_task(self._requests()), asyncio.create_task(self._answers())
        try:
            await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
            if self.waiting:
                await downward
        finally:
            # Before anything is awaited: a connection that is ending may be cut as well, and leaves this block there.
            self.to_client.transport.abort()
            self.to_broker.transport.abort()
            for task in (upward, downward):
                task.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)

    async def _requests(self) -> None:
        while (frame := await _frame(self.from_client)) is not None:
            held, correlation = self.match(frame)
            if held is not None:
                self.waiting[correlation] = held
                if held.how is not Hold.ANSWER:
                    held.reached.set()
                    if held.how is Hold.CUT:
                        self.to_client.transport.abort()
                    await held.opened()
            self.to_broker.write(frame)
            await self.to_broker.drain()

    async def _answers(self) -> None:
        while (frame := await _frame(self.from_broker)) is not None:
            held = self.waiting.get(_SIZE.unpack_from(frame, _SIZE.size)[0])
            if held is not None and held.how is Hold.ANSWER:
                held.reached.set()
                await held.opened()
            with contextlib.suppress(ConnectionError):  # the client may have given up: the broker's word still counts
                self.to_client.write(frame)
                await self.to_client.drain()
            if held is not None:
                held.delivered.set()
                self.waiting.clear()
                if self.to_client.transport.is_closing():
                    return


async def _frame(reader: asyncio.StreamReader) -> bytes | None:
    """One length-prefixed message with its prefix; None at the end of the connection."""
    try:
        size = await reader.readexactly(_SIZE.size)
        return size + await reader.readexactly(_SIZE.unpack(size)[0])
    except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
        return None


@contextmanager
def end_txn_proxy(cluster: Cluster) -> Iterator[EndTxnProxy]:
    """A running proxy in front of a cluster that was started for one."""
    proxy = EndTxnProxy(cluster)
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve()), name="proxy")
    thread.start()
    proxy.ready.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
