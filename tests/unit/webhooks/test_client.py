"""One attempt against real receivers on loopback, friendly and hostile; and destinations that get no packet at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from ops.runtime.clock import SystemClock
from streams.webhooks.client import WebhookClient, check_destination
from streams.webhooks.destinations import RefusedDestination
from streams.webhooks.signing import new_secret

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECRET = new_secret()
TIMEOUT_S = 1.0


class Receiver:
    """A merchant's server, down to the bytes that it answers."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.then: Handle | None = None  # after the answer
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.split("\r\n"))}
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((headers, body))
        try:
            writer.write(self.answer)
            await writer.drain()
            if self.then is not None:
                await self.then(reader, writer)
        except ConnectionError:
            pass  # the client has seen enough
        finally:
            writer.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


@pytest.fixture
async def client() -> AsyncIterator[WebhookClient]:
    client = WebhookClient("test", SystemClock(), timeout_s=TIMEOUT_S)
    await client.start()
    yield client
    await client.stop()


async def test_a_delivery_is_signed_and_its_body_arrives_as_it_is(client: WebhookClient, receiver: Receiver) -> None:
    old = new_secret()
    attempt = await client.deliver(receiver.url, "evt_1", b'{"id":"evt_1"}', [SECRET, old])
    assert (attempt.http_status, attempt.error) == (204, None)
    [(headers, body)] = receiver.requests
    assert body == b'{"id":"evt_1"}'
    assert headers["content-type"] == "application/json"
    for secret in (SECRET, old):
        assert Webhook(secret).verify(body, headers) == {"id": "evt_1"}


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, None),
        (b"HTTP/1.1 299 Fine\r\nContent-Length: 0\r\n\r\n", 299, None),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 301, "answered 301"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", 304, "answered 304"),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", 410, "answered 410"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 500, "answered 500"),
        (b"SSH-2.0-OpenSSH\r\n", None, "invalid_answer"),
        (b"", None, "invalid_answer"),  # closed without a word
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", None, "invalid_answer"),
    ],
)
async def test_only_2xx_is_delivered(
    client: WebhookClient, receiver: Receiver, answer: bytes, status: int | None, error: str | None
) -> None:
    receiver.answer = answer
    attempt = await client.deliver(receiver.url, "evt_1", b"{}", [SECRET])
    assert (attempt.http_status, attempt.error) == (status, error)
    assert receiver.connections == 1  # no redirect followed, nothing sent twice


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client leaves


async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(10_000):
        writer.write(b"X-Slow: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("answer", "then"), [(b"", hang), (b"HTTP/1.1 200 OK\r\n", drip)])
async def test_a_receiver_that_does_not_come_to_the_point_times_out(
    client: WebhookClient, receiver: Receiver, answer: bytes, then: Handle
) -> None:
    receiver.answer, receiver.then = answer, then
    async with asyncio.timeout(TIMEOUT_S * 6):
        attempt = await client.deliver(receiver.url, "evt_1", b"{}", [SECRET])
    assert (attempt.http_status, attempt.error) == (None, "timeout")
    assert attempt.latency_ms >= TIMEOUT_S * 900


async def test_an_endless_body_is_not_read(client: WebhookClient, receiver: Receiver) -> None:
    written = 0

    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            written += 0x10000
            await writer.drain()

    receiver.answer, receiver.then = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", pour
    attempt = await client.deliver(receiver.url, "evt_1", b"{}", [SECRET])
    assert attempt.error is None
    assert written < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("header", "least_ms", "most_ms"),
    [
        ("7", 7_000, 7_000),
        ("Sun, 22 Nov 2099 08:49:37 GMT", 10**12, 10**13),
        ("Sun, 06 Nov 1994 08:49:37 GMT", None, None),
        ("soon", None, None),
    ],
)
async def test_retry_after_is_read_in_both_its_forms(
    client: WebhookClient, receiver: Receiver, header: str, least_ms: int | None, most_ms: int | None
) -> None:
    receiver.answer = f"HTTP/1.1 429 Slow\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n".encode()
    attempt = await client.deliver(receiver.url, "evt_1", b"{}", [SECRET])
    if least_ms is None or most_ms is None:
        assert attempt.retry_after_ms is None
    else:
        assert attempt.retry_after_ms is not None
        assert least_ms <= attempt.retry_after_ms <= most_ms


async def test_a_port_where_nobody_listens_is_a_failed_connection(client: WebhookClient) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        attempt = await client.deliver(f"http://127.0.0.1:{bound.getsockname()[1]}/", "evt_1", b"{}", [SECRET])
    assert (attempt.http_status, attempt.error) == (None, "connection_failed")


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.0.0.1", "2130706433", "017700000001"])
async def test_no_spelling_of_this_host_is_reached_over_https(
    client: WebhookClient, receiver: Receiver, host: str
) -> None:
    attempt = await client.deliver(f"https://{host}:{receiver.port}/", "evt_1", b"{}", [SECRET])
    assert attempt.error in ("destination_refused", "name_not_resolved", "invalid_answer")
    assert receiver.connections == 0


async def test_a_name_that_changes_its_address_is_checked_where_it_is_connected_to(
    client: WebhookClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public while it is checked, our own network when it is connected to."""
    answers = ["93.184.215.14", "127.0.0.1"]

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers.pop(0), port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    url = f"https://shop.example:{receiver.port}/"
    await check_destination(url, "live")
    attempt = await client.deliver(url, "evt_1", b"{}", [SECRET])
    assert answers == []
    assert attempt.error == "destination_refused"
    assert receiver.connections == 0


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "127.0.0.1"])
async def test_a_name_that_leads_inside_is_refused(
    client: WebhookClient, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connected: list[object] = []

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        rest = (0, 0) if family == socket.AF_INET6 else ()
        return [(family, socket.SOCK_STREAM, 6, "", (address, port, *rest))]

    async def connect(_socket: socket.socket, to: object) -> None:
        connected.append(to)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    with pytest.raises(RefusedDestination):
        await check_destination("https://shop.example/", "live")
    attempt = await client.deliver("https://shop.example/", "evt_1", b"{}", [SECRET])
    assert attempt.error == "destination_refused"
    assert connected == []


async def test_a_name_that_does_not_resolve_is_accepted_and_fails_on_delivery(client: WebhookClient) -> None:
    await check_destination("https://nobody.invalid/", "live")
    attempt = await client.deliver("https://nobody.invalid/", "evt_1", b"{}", [SECRET])
    assert (attempt.http_status, attempt.error) == (None, "name_not_resolved")
