"""How the stack asks a server whether it is ready: one exchange in the server's own protocol over mutual TLS."""

from __future__ import annotations

import asyncio
import ssl

from ops.local.layout import Home

TIMEOUT_S = 2.0


def client_context(home: Home, identity: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(home.ca))
    context.load_cert_chain(home.cert(identity), home.key(identity))
    return context


async def exchange(host: str, port: int, context: ssl.SSLContext, request: bytes, answer_bytes: int) -> bytes | None:
    """Send `request` and return the first `answer_bytes` of the answer; None when the server is not there yet."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.write(request)
            return await reader.readexactly(answer_bytes)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None  # not listening, not speaking TLS or not answering: all of it means "not yet"
    finally:
        if writer is not None:
            writer.transport.abort()


async def http_ok(home: Home, port: int, path: str, identity: str) -> bool:
    """GET `path` over HTTPS on loopback answers 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    answer = await exchange("127.0.0.1", port, client_context(home, identity), request, len("HTTP/1.1 200"))
    return answer == b"HTTP/1.1 200"
