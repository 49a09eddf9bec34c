"""Bytes of an attacker: smuggled requests, upgrades, card numbers in every place, text that is no text."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.unit.api.platform_in_memory import PAYMENT, Platform

VISA = "4242424242424242"
SMUGGLED = b"GET /payments?limit=77 HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = json.dumps(PAYMENT).encode()


async def exchange(platform: Platform, sent: bytes) -> tuple[list[int], bytes]:
    """The statuses of every answer on one connection that the server must close, and all that it sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(5):
            received = await reader.read()
    finally:
        writer.close()
    return [int(status) for status in re.findall(rb"HTTP/[01]\.[0-9] (\d{3}) ", received)], received


def head(platform: Platform, start: bytes, *lines: bytes) -> bytes:
    fixed = (b"Host: x", f"Authorization: Bearer {platform.secret_key}".encode(), b"Content-Type: application/json")
    return b"\r\n".join([start, *fixed, *lines, b"", b""])


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
        (b"Transfer-Encoding: xchunked", b"0\r\n\r\n"),
        (b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
        (b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"0\r\n\r\n"),
        (b"Content-Length: +1", b"{"),
        (b"Content-Length: -1", b"{"),
        (b"Content-Length: 0x1", b"{"),
        (b"Content-Length: 1, 1", b"{"),
        (b"Content-Length: 1\r\nContent-Length: 1", b"{"),
        ("Content-Length: １".encode(), b"{"),
        (b"A: b\r\n folded", b""),
        (b"A: b\x00c", b""),
        (b"A: b\rc", b""),
        (b"Host: y", b""),
        (b"Transfer-Encoding: chunked", b"1;a=\n{\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"-1\r\n{\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"1\r\n{0\r\n\r\n"),
    ],
)
async def test_a_request_whose_end_is_in_doubt_is_refused_and_nothing_behind_it_is_read(
    platform: Platform, line: bytes, content: bytes
) -> None:
    statuses, received = await exchange(platform, head(platform, b"POST /payments HTTP/1.1", line) + content + SMUGGLED)
    assert statuses == [400], received
    problem = json.loads(received.partition(b"\r\n\r\n")[2])
    assert (problem["code"], "param" in problem) == ("invalid_request", True)
    assert platform.log.published == []


@pytest.mark.parametrize("behind", [b"", SMUGGLED])
@pytest.mark.parametrize(
    "start", [b"GET /payments", b"PRI * HTTP/2.0\r\n\r\nSM", b"GET /payments HTTP/1.1\nHost: x\n\nA: b"]
)
async def test_what_is_not_http_1_is_refused(platform: Platform, start: bytes, behind: bytes) -> None:
    statuses, _ = await exchange(platform, start + b"\r\n\r\n" + behind)
    assert statuses == [400]


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_a_client_that_asks_for_another_protocol_is_answered_in_this_one_and_not_left_waiting(
    platform: Platform, protocol: bytes
) -> None:
    """Java's HTTP client asks for h2c with its first request, then sends the next one on the same connection."""
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: " + protocol, b"Content-Length: %d" % len(BODY))
    statuses, _ = await exchange(platform, head(platform, b"POST /payments HTTP/1.1", *lines) + BODY + SMUGGLED)
    assert statuses[0] == 201


async def test_an_unknown_expectation_is_a_problem_that_does_not_repeat_it(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (f"Expect: {VISA}".encode(), b"Connection: close")
    statuses, received = await exchange(platform, head(platform, b"GET /payments HTTP/1.1", *lines))
    assert statuses == [400]
    assert b"Request-Id" in received
    assert VISA.encode() not in received
    assert VISA not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (f"GET /payments/{VISA} HTTP/1.1", ""),
        ("GET /payments/%34242424242424242 HTTP/1.1", ""),
        ("GET /payments/4242%C2%A04242%E2%80%934242.4242 HTTP/1.1", ""),
        (f"GET /idempotency_keys/{VISA} HTTP/1.1", ""),
        (f"GET /payments?status={VISA} HTTP/1.1", ""),
        (f"GET /payments?{VISA}=1 HTTP/1.1", ""),
        ("GET /payments?status=4242+4242+4242+4242 HTTP/1.1", ""),
        ("GET /payments?status=%EF%BC%94242424242424242 HTTP/1.1", ""),
        ("GET /payments?card-Number=1 HTTP/1.1", ""),
        ("GET /payments?c%76c=1 HTTP/1.1", ""),
        ("GET /openapi.json HTTP/1.1", f"X-Anything: {VISA}"),
        ("GET /payments HTTP/1.1", f"Idempotency-Key: {VISA}"),
        ("GET /payments HTTP/1.1", f"Cookie: card={VISA}"),
        ("GET /payments HTTP/1.1", "User-Agent: a 4242 4242 4242 4242"),
        ("GET /payments HTTP/1.1", "X-Note: ４２４２４２４２４２４２４２４２"),
        ("GET /payments HTTP/1.1", f"X-{VISA}: 1"),
        ("GET /payments HTTP/1.1", f"Prefer: wait={VISA}"),
        ("GET /payments HTTP/1.1", f"traceparent: {VISA}"),
        ("OPTIONS /payments/x HTTP/1.1", f"X-Anything: {VISA}"),
        (f"BREW /{VISA} HTTP/1.1", ""),
    ],
)
async def test_a_card_number_in_any_place_of_a_head_is_refused_and_logged_nowhere(
    platform: Platform, start: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.encode()] if line else []
    statuses, received = await exchange(platform, head(platform, start.encode(), *lines, b"Connection: close"))
    assert statuses == [400]
    code = json.loads(received.partition(b"\r\n\r\n")[2])["code"]
    assert code == ("invalid_request" if start.startswith("BREW") else "card_data_forbidden")
    logged = capsys.readouterr()
    assert "4242" not in logged.out + logged.err
    assert b"4242" not in received


async def test_the_headers_that_carry_secrets_may_hold_any_digits(platform: Platform) -> None:
    lines = (f"Client-Secret: {VISA}".encode(), b"Connection: close")
    statuses, _ = await exchange(platform, head(platform, b"GET /payments HTTP/1.1", *lines))
    assert statuses == [200]


@pytest.mark.parametrize(
    ("path", "line", "status"),
    [
        ("/payments/{id}", b"Client-Secret: \xff\xfe", 200),
        ("/payments", b"Authorization: Bearer \xff", 401),
        ("/payments", b"Accept: \xff;q=\xff", 406),
        ("/payments", b"traceparent: \xff", 200),
        ("/payments?%ff=%ff", b"A: b", 400),
        ("/payments?starting_after=%ed%a0%80", b"A: b", 400),
        ("/payments?created_after=%00", b"A: b", 400),
        ("/payments/{id}?as_of=%ff", b"A: b", 400),
        ("/payments/%ff", b"A: b", 404),
        ("/payments/%00", b"A: b", 404),
        ("/idempotency_keys/%ff", b"A: b", 404),
        ("/idempotency_keys/%ed%a0%80", b"A: b", 404),
        ("/payments/%zz", b"A: b", 404),
        ("//payments", b"A: b", 404),
    ],
)
async def test_bytes_that_are_no_text_are_never_an_error_of_ours(
    platform: Platform, path: str, line: bytes, status: int
) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    start = f"GET {path.format(id=payment_id)} HTTP/1.1".encode()
    sent = head(platform, start, line, b"Connection: close")
    if line.startswith(b"Authorization"):
        sent = b"\r\n".join([start, b"Host: x", line, b"Connection: close", b"", b""])
    statuses, received = await exchange(platform, sent)
    assert statuses == [status], received


async def test_a_browsers_client_secret_of_wild_bytes_is_403(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    start = f"GET /payments/{payment_id} HTTP/1.1".encode()
    key = f"Authorization: Bearer {platform.publishable_key}".encode()
    lines = [start, b"Host: x", key, b"Client-Secret: \xff\xfe", b"Connection: close", b"", b""]
    statuses, _ = await exchange(platform, b"\r\n".join(lines))
    assert statuses == [403]
