"""What the API refuses, with which code, and in which order."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from api.gate import IDEMPOTENCY_KEY_MAX
from tests.unit.api.platform_in_memory import MERCHANT, PAYMENT, Answer, Platform

VISA = "4242424242424242"


def body(**changes: Any) -> bytes:
    return json.dumps({**PAYMENT, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in PAYMENT.items() if key != name}).encode()


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        (body(amount=0), "amount_invalid", "amount"),
        (body(amount=-1), "amount_invalid", "amount"),
        (body(amount=100_000_000_000), "amount_invalid", "amount"),
        (body(amount=25.0), "amount_invalid", "amount"),
        (body(amount="2500"), "amount_invalid", "amount"),
        (body(amount=True), "amount_invalid", "amount"),
        (body(amount=None), "amount_invalid", "amount"),
        (without("amount"), "amount_invalid", "amount"),
        (body().replace(b"2500", b"1" * 5000), "amount_invalid", "amount"),
        (body().replace(b"2500", b"25e2"), "amount_invalid", "amount"),
        (body(currency="usd"), "currency_invalid", "currency"),
        (body(currency="USD\n"), "currency_invalid", "currency"),
        (body(currency="XXX"), "currency_invalid", "currency"),
        (body(currency="ABC"), "currency_invalid", "currency"),
        (body(currency=840), "currency_invalid", "currency"),
        (without("currency"), "currency_invalid", "currency"),
        (without("customer"), "invalid_request", "customer"),
        (body(customer={}), "invalid_request", "customer"),
        (body(customer={"name": ""}), "invalid_request", "customer.name"),
        (body(customer={"name": "Ann", "phone": "1"}), "unknown_field", "customer.phone"),
        (body(extra=1), "unknown_field", "extra"),
        (body(status="SETTLED"), "unknown_field", "status"),
        (body(description="x" * 501), "invalid_request", "description"),
        (body(metadata={"k": 1}), "invalid_request", "metadata"),
        (body(metadata={"k" * 41: "v"}), "invalid_request", "metadata"),
        (body(metadata={"k": "v" * 501}), "invalid_request", "metadata"),
        (body(metadata={str(n): "v" for n in range(51)}), "invalid_request", "metadata"),
        (b"[]", "invalid_request", "body"),
        (b'"x"', "invalid_request", "body"),
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"amount": 1, "amount": 2500}', "invalid_json", None),
        (body().replace(b'"order": "17"', b'"order": "17", "order": "17"'), "invalid_json", None),
        (body().replace(b"2500", b"NaN"), "invalid_json", None),
        (body().replace(b"2500", b"Infinity"), "invalid_json", None),
        (body().replace(b"2500", b"0100"), "invalid_json", None),
        (b"\xef\xbb\xbf" + body(), "invalid_json", None),
        (body().replace(b"Ann", b"\xff\xfe"), "invalid_json", None),
        (body().replace(b"Ann", b"\\ud800"), "invalid_json", None),
        (json.dumps(PAYMENT).encode("utf-16"), "invalid_json", None),
        (b'{"metadata":' * 33 + b"1" + b"}" * 33, "invalid_json", None),
        (b"[" * 60_000, "invalid_json", None),
        (body(description=VISA), "card_data_forbidden", None),
        (body(metadata={"note": "card 4242 4242 4242 4242"}), "card_data_forbidden", None),
        (body(metadata={VISA: "x"}), "card_data_forbidden", None),
        (body().replace(b"Ann", b"\\u0034242424242424242"), "card_data_forbidden", None),
        (body(metadata={"CVC": "123"}), "card_data_forbidden", None),
        (body(metadata={}).replace(b"{}", b'{"c\\u0076c": "1"}'), "card_data_forbidden", None),
        (b'{"card_number": ', "card_data_forbidden", None),
        (body(amount=int(VISA)), "card_data_forbidden", None),
    ],
)
async def test_a_bad_body_is_400_with_its_code_and_the_field_and_reaches_no_topic(
    platform: Platform, sent: bytes, code: str, param: str | None
) -> None:
    answer = await platform.call("POST", "/payments", raw=sent)
    assert (answer.status, answer.code) == (400, code), answer.content
    assert answer.json.get("param") == param
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["request_id"] == answer.headers["Request-Id"]
    assert platform.log.published == []
    assert VISA.encode() not in answer.content


@pytest.mark.parametrize("amount", [1, 99_999_999_999])
async def test_the_limits_themselves_are_accepted(platform: Platform, amount: int) -> None:
    customer = {"id": "c" * 255}
    metadata = {"k" * 39 + chr(33 + n): "v" * 500 for n in range(50)}
    assert (
        await platform.create(amount=amount, customer=customer, description="d" * 500, metadata=metadata)
    ).status == 201


@pytest.mark.parametrize("key", ["k", "k" * IDEMPOTENCY_KEY_MAX, "~!\"#$%&'()*+,-./:;<=>?@[]^_`{|}", "a b"])
async def test_any_printable_ascii_is_an_idempotency_key_taken_literally(platform: Platform, key: str) -> None:
    first, again = await platform.create(key), await platform.create(key)
    assert first.status == 201
    assert first.content == again.content
    assert (await platform.create(key[:-1] + "2")).json["payment_id"] != first.json["payment_id"]


@pytest.mark.parametrize(
    "lines",
    [
        b"Idempotency-Key: ",
        b"Idempotency-Key: a\r\nIdempotency-Key: a",
        b"Idempotency-Key: " + b"k" * 256,
        b"Idempotency-Key: \xc3\xa9",
        b"Idempotency-Key: a\tb",
    ],
)
async def test_other_idempotency_keys_are_refused(platform: Platform, lines: bytes) -> None:
    answer = await raw(platform, _head("POST", "/payments", platform.secret_key, lines, body()) + body())
    assert (answer.status, answer.code) == (400, "idempotency_key_invalid")


async def test_confirm_needs_an_idempotency_key(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    answer = await platform.call("POST", f"/payments/{payment_id}/confirm", {"payment_method_token": "pm_card_visa"})
    assert (answer.status, answer.code) == (400, "idempotency_key_required")


async def test_the_order_of_checks(platform: Platform) -> None:
    """One request with every fault; each time the fault that is reported is mended, the next is reported."""
    payment_id = (await platform.create()).json["payment_id"]
    platform.add_merchant(MERCHANT, status="SUSPENDED")
    platform.seconds += 5
    read_only = platform.add_key("restricted", ["payments:read"])
    fault: dict[str, Any] = {
        "path": f"/payments/{payment_id}/confirmed?cvc=1",
        "method": "PUT",
        "key": "nonsense",
        "headers": {"Accept": "text/html", "Content-Type": "text/plain", "Idempotency-Key": "\t"},
        "raw": b"{" + b" " * 70_000 + VISA.encode(),
    }

    async def code() -> str:
        sent = {**fault, "headers": dict(fault["headers"])}
        return (await platform.call(sent.pop("method"), sent.pop("path"), **sent)).code

    assert await code() == "card_data_forbidden"
    fault["path"] = f"/payments/{payment_id}/confirmed?x=1"
    assert await code() == "unauthenticated"
    fault["key"] = read_only
    assert await code() == "not_found"
    fault["path"] = f"/payments/{payment_id}/confirm?x=1"
    assert await code() == "method_not_allowed"
    fault["method"] = "POST"
    assert await code() == "not_acceptable"
    fault["headers"]["Accept"] = "text/html;q=0.9, application/*;q=0.1"
    assert await code() == "forbidden"
    fault["key"] = platform.secret_key
    assert await code() == "merchant_inactive"
    platform.add_merchant(MERCHANT)
    platform.seconds += 5
    assert await code() == "body_too_large"
    fault["raw"] = b'{"payment_method_token": "' + VISA.encode()
    assert await code() == "unsupported_media_type"
    fault["headers"]["Content-Type"] = "application/json; charset=UTF-8"
    assert await code() == "card_data_forbidden"
    fault["raw"] = b'{"payment_method_token": "pm_x"'
    assert await code() == "invalid_json"
    fault["raw"] = b'{"payment_method_token": "x"}'
    assert await code() == "invalid_request"
    fault["raw"] = b'{"payment_method_token": "pm_x"}'
    assert await code() == "invalid_request"  # the query
    fault["path"] = f"/payments/{payment_id}/confirm"
    fault["headers"].pop("Idempotency-Key")
    assert await code() == "idempotency_key_required"
    fault["headers"]["Idempotency-Key"] = "k"
    fault["path"] = "/payments/pay_" + "a" * 26 + "/confirm"
    assert await code() == "not_found"


@pytest.mark.parametrize("where", ["query", "path", "header"])
async def test_card_numbers_in_query_path_and_headers_are_refused_before_the_key_is_looked_at(
    platform: Platform, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"query": f"/payments?note={VISA}", "path": f"/payments/{VISA}", "header": "/payments"}[where]
    answer = await platform.call("GET", path, key=None, headers={"X-Note": VISA} if where == "header" else {})
    assert (answer.status, answer.code) == (400, "card_data_forbidden")
    assert VISA not in capsys.readouterr().out


async def test_every_401_has_the_same_body_and_takes_the_same_time(platform: Platform) -> None:
    revoked = platform.add_key("secret", revoked_at=1)
    expired = platform.add_key("secret", expires_at=1)
    unknown = platform.secret_key[:-1] + ("a" if platform.secret_key[-1] != "a" else "b")
    live = platform.secret_key.replace("_test_", "_live_")
    loop = asyncio.get_running_loop()
    bodies, seconds = [], []
    for header in (None, "", "Basic x", "Bearer", *(f"Bearer {key}" for key in ("x", revoked, expired, unknown, live))):
        began = loop.time()
        answer = await platform.call("GET", "/nowhere", key=None, headers={"Authorization": header} if header else {})
        seconds.append(loop.time() - began)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        bodies.append(answer.json | {"request_id": ""})
    assert all(each == bodies[0] for each in bodies)
    assert min(seconds) >= 0.03


async def test_a_revocation_works_within_five_seconds(platform: Platform) -> None:
    assert (await platform.create()).status == 201
    for key_hash, stored in list(platform.records.api_keys.items()):
        platform.records.api_keys[key_hash] = type(stored)(**{**_fields(stored), "revoked_at": 1})
    assert (await platform.create()).status == 201  # cached
    platform.seconds += 3.1
    assert (await platform.create()).status == 401


async def test_while_records_are_away_known_keys_create_for_ten_minutes_and_unknown_ones_are_503(
    platform: Platform,
) -> None:
    assert (await platform.create()).status == 201
    platform.records.away = True
    platform.seconds += 599
    assert (await platform.create()).status == 201
    assert (await platform.call("GET", "/payments")).code == "unavailable"
    assert (await platform.call("POST", "/payments", PAYMENT, key=platform.other_key)).code == "unavailable"
    platform.seconds += 2
    assert (await platform.create()).code == "unavailable"


async def test_restricted_keys_do_what_their_scopes_say_and_publishable_ones_only_browsers_work(
    platform: Platform,
) -> None:
    reader = platform.add_key("restricted", ["payments:read"])
    writer = platform.add_key("restricted", ["payments:write"])
    created = await platform.call("POST", "/payments", PAYMENT, key=writer)
    assert created.status == 201
    assert "client_secret" not in created.json
    path = created.headers["Location"]
    assert (await platform.call("GET", path, key=reader)).status == 200
    assert (await platform.call("GET", path, key=writer)).status == 403
    assert (await platform.call("POST", "/payments", PAYMENT, key=reader)).status == 403
    assert (await platform.call("POST", "/payments", PAYMENT, key=platform.publishable_key)).status == 403
    assert (await platform.call("GET", "/payments", key=platform.publishable_key)).status == 403
    for query in ("as_of=1", "as_of=never", "as_of=1&as_of=1", "as_of=1&unknown=1"):
        assert (await platform.call("GET", f"{path}?{query}", key=platform.publishable_key)).status == 403, query


async def test_a_suspended_merchant_reads_and_cancels_but_neither_creates_nor_confirms(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    platform.add_merchant(MERCHANT, status="SUSPENDED")
    platform.seconds += 5
    assert (await platform.create()).code == "merchant_inactive"
    assert (await platform.confirm(payment_id)).code == "merchant_inactive"
    assert (await platform.call("GET", f"/payments/{payment_id}")).status == 200
    assert (await platform.call("POST", f"/payments/{payment_id}/cancel", idempotency_key="x")).status == 200


async def test_a_currency_that_the_merchant_does_not_settle_is_refused(platform: Platform) -> None:
    platform.add_merchant(MERCHANT, currencies=["EUR"])
    assert (await platform.create()).code == "currency_invalid"
    assert (await platform.create(currency="EUR")).status == 201


@pytest.mark.parametrize("currency", ["ABC", "USD"])
async def test_the_currency_is_checked_before_the_idempotency_key(platform: Platform, currency: str) -> None:
    platform.add_merchant(MERCHANT, currencies=["EUR"])
    refused = await platform.create("k" * 256, currency=currency)
    assert refused.code == "currency_invalid"
    assert (await platform.create("k" * 256, currency="EUR")).code == "idempotency_key_invalid"


async def test_cors_is_open_for_confirm_and_get_and_nowhere_else(platform: Platform) -> None:
    path = "/payments/pay_" + "a" * 26
    for opened, method in ((path, "GET"), (f"{path}/confirm", "POST")):
        preflight = await platform.call("OPTIONS", opened, key=None, headers={"Origin": "https://shop.example"})
        assert preflight.status == 204
        assert method in preflight.headers["Access-Control-Allow-Methods"]
        assert "Client-Secret" in preflight.headers["Access-Control-Allow-Headers"]
        refused = await platform.call(method, opened, key=None)
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")
    closed = await platform.call("OPTIONS", "/payments", headers={"Origin": "https://shop.example"})
    assert closed.status == 405
    assert (await platform.call("GET", "/payments")).headers.get("Access-Control-Allow-Origin") is None


async def test_a_compressed_body_is_415_and_is_not_inflated(platform: Platform) -> None:
    answer = await platform.call("POST", "/payments", raw=b"\x1f\x8b" * 100, headers={"Content-Encoding": "gzip"})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


async def test_a_second_encoding_is_415_too(platform: Platform) -> None:
    lines = b"Content-Encoding: identity\r\nContent-Encoding: gzip"
    answer = await raw(platform, _head("POST", "/payments", platform.secret_key, lines, body()) + body())
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n", 414, "uri_too_long"),
        (GET + b"A: " + b"a" * 33_000 + b"\r\n", 431, "headers_too_large"),
        (GET + b"".join(b"A%d: %s\r\n" % (n, b"a" * 5_000) for n in range(8)), 431, "headers_too_large"),
        (GET + b"A: b\r\n" * 200, 431, "headers_too_large"),
        (b"GET /" + b"a" * 8_000 + b" HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 25_000 + b"\r\n", 431, "headers_too_large"),
        (f"GET /{VISA}\x00 HTTP/1.1\r\n".encode(), 400, "invalid_request"),
        (POST + b"Transfer-Encoding: chunked\r\n", 400, "invalid_request"),
        (POST + b"Content-Length: 2\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n", 400, "invalid_request"),
    ],
)
async def test_what_the_parser_refuses_is_answered_as_a_problem_and_never_logged(
    platform: Platform, head: bytes, status: int, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await raw(platform, head + b"\r\n")
    assert (answer.status, answer.code) == (status, code)
    logged = capsys.readouterr()
    assert VISA not in logged.out + logged.err
    assert "Content-Length" not in logged.out + logged.err


async def test_a_body_that_is_too_long_is_413_in_chunks_too(platform: Platform) -> None:
    head = _head("POST", "/payments", platform.secret_key, b"Transfer-Encoding: chunked")
    answer = await raw(platform, head + b"11000\r\n" + b" " * 0x11000 + b"\r\n0\r\n\r\n")
    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_heads_and_bodies_that_do_not_end_are_408(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.bodies.BODY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("ops.runtime.http_server.HEAD_TIMEOUT_S", 0.2)
    unfinished = _head("POST", "/payments", platform.secret_key, b"Content-Length: 10")
    assert (await raw(platform, unfinished + b"{")).code == "request_timeout"
    assert (await raw(platform, unfinished[:-4])).code == "request_timeout"


def _head(method: str, path: str, key: str, lines: bytes, content: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(content) if content else b""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n".encode()
        + b"Content-Type: application/json\r\n"
        + length
        + lines
        + b"\r\n\r\n"
    )


async def raw(platform: Platform, sent: bytes) -> Answer:
    """Bytes as they are, on a connection of their own; the answer is read by its length."""
    reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
    try:
        writer.write(sent)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if line)
        content = await reader.readexactly(int(headers["Content-Length"]))
        return Answer(int(lines[0].split(" ")[1]), headers, content)
    finally:
        writer.close()


def _fields(stored: Any) -> dict[str, Any]:
    return {name: getattr(stored, name) for name in stored.__struct_fields__}
