"""The hardened aiohttp server under every HTTP port of ours.

aiohttp's own server logs the bytes that its parser refuses and answers them as text; it bounds neither a whole
request head nor the time it may take. This one answers such requests as problem+json, never logs what was sent, and
bounds both.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.http_writer import HttpVersion10
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from ops.runtime.logs import exception_fields, logger

REQUEST_LINE_BYTES_MAX = 8 * 1024
HEAD_BYTES_MAX = 32 * 1024
HEAD_TIMEOUT_S = 10.0
KEEPALIVE_TIMEOUT_S = 75.0  # as nginx: longer than the idle time-out of the usual client pools
LINGER_S = 2.0  # time a client gets to read an early refusal while it still sends its body
HEADERS_MAX = 128

ErrorRenderer = Callable[[int, str, str], web.Response]
"""Makes the answer to a request that never became one: (status, code, detail) -> response."""


class _HeadTimeout(Exception):  # noqa: N818 - a condition of the connection, not a fault of ours
    """The request's head was not complete in time."""


class _HeadTooLarge(Exception):  # noqa: N818
    """More bytes than a head may have, and no end of it yet."""


class HardenedProtocol(web.RequestHandler):
    """One connection. Counts the bytes and the seconds of an unfinished head."""

    __slots__ = ("_body", "_head_bytes", "_head_timer", "_render_error")

    def __init__(self, manager: web.Server, *, render_error: ErrorRenderer, **options: Any) -> None:
        super().__init__(
            manager,
            access_log=None,  # type: ignore[arg-type]  # documented as the way to turn it off
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_TIMEOUT_S,
            lingering_time=LINGER_S,
            max_line_size=REQUEST_LINE_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEADERS_MAX,
            **options,
        )
        self._render_error = render_error
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._body: StreamReader = EMPTY_PAYLOAD

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        heads_before = self._request_count
        super().data_received(data)
        if self._request_count != heads_before:
            self._head_bytes = 0
            self._stop_head_timer()
            self._body = self._messages[-1][1] if self._messages else EMPTY_PAYLOAD
        elif self._body.is_eof() and data:
            self._start_head_timer()
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(_HeadTooLarge())

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._refuse(_HeadTimeout())
        else:
            self.force_close()  # connected and never spoke: nobody waits for an answer

    def _refuse(self, error: Exception) -> None:
        """Queues the answer to an unfinished head behind the requests before it; then the connection closes."""
        self._head_bytes = 0
        self._stop_head_timer()
        self._messages.append((_ErrInfo(status=400, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.transport is not None:
            self.transport.pause_reading()

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        """Prevents what aiohttp does by itself: repeat an unknown `Expect`, take HTTP/0.9, go silent after `Upgrade`.

        Its parser reads nothing behind a request that asks for another protocol (Java's client asks for HTTP/2 with its
        first one), so that connection is closed with the answer.
        """

        async def answered(received: web.BaseRequest) -> web.StreamResponse:
            if received.version < HttpVersion10:
                response: web.StreamResponse = self._render_error(400, "invalid_request", "this is not HTTP/1.1")
            else:
                try:
                    response = await request_handler(received)
                except web.HTTPException:
                    detail = "an expectation that this server does not meet"
                    response = self._render_error(400, "invalid_request", detail)
            if received.version < HttpVersion10 or "Upgrade" in received.headers:
                response.force_close()
            return response

        return await super()._handle_request(request, start_time, answered)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser refused, or to an exception that no middleware answered."""
        status, code, detail = _refusal(exc)
        if status == 500 and exc is not None:
            logger().error("request failed", **exception_fields(exc))
        else:
            logger().info("request refused", status=status, code=code)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun")
        response = self._render_error(status, code, detail)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """aiohttp's own complaints: the class and the place, never the text."""
        error = kw.get("exc_info")
        fields = exception_fields(error) if isinstance(error, BaseException) else {}
        logger().error("http server error", **fields)


def _refusal(error: BaseException | None) -> tuple[int, str, str]:
    """(status, code, detail) for what ended a request before a handler saw it."""
    match error:
        case _HeadTimeout():
            return 408, "request_timeout", f"the head of a request has {HEAD_TIMEOUT_S:.0f} s"
        case _HeadTooLarge():
            return 431, "headers_too_large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes"
        case LineTooLong() if error.args[1] == REQUEST_LINE_BYTES_MAX:
            return 414, "uri_too_long", f"a request line has at most {REQUEST_LINE_BYTES_MAX} bytes"
        case LineTooLong():
            return 431, "headers_too_large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes"
        case BadHttpMessage() if error.message == "Too many headers received":
            return 431, "headers_too_large", f"a request has at most {HEADERS_MAX} header fields"
        case BadHttpMessage():
            return 400, "invalid_request", "this is not a valid HTTP request"
        case _:
            return 500, "internal_error", "an error of ours; it was logged under this request_id"


def check_head_size(request: web.BaseRequest) -> tuple[int, str, str] | None:
    """(status, code, detail) when a parsed request's line or head is over its limit; else None."""
    line_bytes = len(request.method) + len(request.raw_path.encode(errors="surrogateescape")) + 10
    if line_bytes > REQUEST_LINE_BYTES_MAX:
        return 414, "uri_too_long", f"a request line has at most {REQUEST_LINE_BYTES_MAX} bytes"
    if line_bytes + 2 + sum(len(name) + len(value) + 4 for name, value in request.raw_headers) > HEAD_BYTES_MAX:
        return 431, "headers_too_large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes"
    return None


class HttpServer:
    """One aiohttp application on any number of ports. A component of a service: start, then stop (which drains)."""

    def __init__(
        self,
        app: web.Application,
        render_error: ErrorRenderer,
        drain_s: float = 8.0,
        *,
        cancel_on_disconnect: bool = False,
    ) -> None:
        """`cancel_on_disconnect`: a handler whose client went away is cancelled instead of run to its end."""
        self._runner = web.AppRunner(app, shutdown_timeout=drain_s, handler_cancellation=cancel_on_disconnect)
        self._drain_s = drain_s
        self._render_error = render_error
        self._listen: list[tuple[str, int, ssl.SSLContext | None]] = []
        self._servers: list[asyncio.AbstractServer] = []
        self.ports: list[int] = []  # the bound ones, in the order of `add_port`

    def add_port(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Adds a listener (port 0: any free one). `context` None means plain HTTP: loopback only."""
        self._listen.append((host, port, context))

    async def start(self) -> None:
        """Binds every port. Raises OSError naming the one that is in use."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        manager = self._runner.server
        assert manager is not None

        def connection() -> HardenedProtocol:
            return HardenedProtocol(manager, loop=loop, render_error=self._render_error)

        for host, port, context in self._listen:
            server = await loop.create_server(connection, host, port, ssl=context, backlog=1024)
            self._servers.append(server)
            self.ports.append(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Accepts nothing new, lets running requests end (at most `drain_s` seconds), closes."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()
        self._servers.clear()
