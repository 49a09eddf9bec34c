"""aiohttp sessions over TLS that leave nothing behind in the test's loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

GOODBYE_S = 5.0


@asynccontextmanager
async def tls_session(url: str, context: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    """A session for `url`; the `with` block ends when every connection is closed.

    aiohttp forgets a connection that is not to be used again (`Connection: close`, or an answer that came before the
    request's last byte) while TLS still waits for the server's goodbye; the test's loop may end before that.
    """
    sockets: list[socket.socket] = []

    def new_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, _ = address
        sockets.append(socket.socket(family, kind, protocol))
        return sockets[-1]

    connector = aiohttp.TCPConnector(ssl=context, socket_factory=new_socket)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        yield session
    async with asyncio.timeout(GOODBYE_S):
        while any(opened.fileno() >= 0 for opened in sockets):  # noqa: ASYNC110 - sockets tell nobody
            await asyncio.sleep(0.005)
