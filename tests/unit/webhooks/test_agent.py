"""Step 7 (Notify): the `webhooks` agent on a bench. Time passes only where a test says so."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from ops.runtime.encryption import DataKeys
from ops.runtime.secrets import SecretKey, SecretKeys
from streams.agents.webhooks import SHARE_MAX, Webhooks
from streams.domain.delivery import BatchSummary, FeedEvent
from streams.domain.payment import Payment, PaymentStatus, PersonalData
from streams.exactly_once.records import Output, Record
from streams.exactly_once.testing import Bench
from streams.webhooks.bodies import Bodies
from streams.webhooks.client import Attempt
from streams.webhooks.directory import EndpointDirectory
from tables.deliveries import DELIVERIES
from tables.records.endpoints import Endpoint, EndpointSecret
from tables.records.errors import RecordsUnavailable
from topics import catalog
from topics.codec import Codec
from topics.schemas import subjects

DAY_MS = 86_400_000
TOPIC = "webhooks.outcomes"


class Endpoints:
    """The merchant's endpoints as the records have them."""

    def __init__(self) -> None:
        self.all: dict[str, Endpoint] = {}
        self.away = False
        self.reads = 0

    async def of_merchant(self, merchant_id: str) -> Sequence[Endpoint]:
        self.reads += 1
        if self.away:
            raise RecordsUnavailable("no quorum")
        return [endpoint for endpoint in self.all.values() if endpoint.merchant_id == merchant_id]


class Keys:
    """Wrapped data keys in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def put(self, key_id: str, wrapped: bytes, created_at: int) -> None:
        self.rows[key_id] = wrapped

    async def get(self, key_id: str) -> bytes | None:
        return self.rows.get(key_id)


class Receivers:
    """The merchants' servers: what each answers next, and what each was sent."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Attempt]] = defaultdict(list)  # by URL; none left: delivered
        self.got: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.bodies: dict[str, list[bytes]] = defaultdict(list)
        self.secrets: list[Sequence[str]] = []
        self.arrivals = asyncio.Semaphore(0)
        self.hold: asyncio.Event | None = None

    async def deliver(self, url: str, event_id: str, body: bytes, endpoint_secrets: Sequence[str]) -> Attempt:
        self.secrets.append(endpoint_secrets)
        self.bodies[url].append(body)
        document = msgspec.json.decode(body)
        assert document["id"] == event_id
        self.got[url].append(document)
        self.arrivals.release()
        if self.hold is not None:
            await self.hold.wait()
        return self.answers[url].pop(0) if self.answers[url] else Attempt(http_status=200, latency_ms=3)

    def sequences(self, url: str, payment_id: str) -> list[int]:
        return [e["sequence"] for e in self.got[url] if e["data"]["object"].get("payment_id") == payment_id]


def failed(status: int = 500, retry_after_ms: int | None = None) -> Attempt:
    return Attempt(http_status=status, latency_ms=3, error=f"answered {status}", retry_after_ms=retry_after_ms)


class Dispatcher:
    """The agent on a bench, with a feed to append to."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.endpoints = Endpoints()
        self.receivers = Receivers()
        master = SecretKeys([SecretKey("m1", bytes(32))])
        self.key_rows = Keys()
        self.keys = DataKeys(master, self.key_rows, self)
        codec = Codec({s.name: n for n, s in enumerate(subjects(catalog.TOPICS), 1)}, lambda _: None)
        self._decode = codec.decoder(TOPIC)
        directory = EndpointDirectory(self.endpoints, self.keys, self, lambda: self.bench.now_ms / 1000)
        self.handle = Webhooks(
            directory,
            Bodies(directory, self.keys),
            self.receivers,  # type: ignore[arg-type]
            Output(TOPIC, codec.encoder(TOPIC)),
            self,
        )
        self.told: list[tuple[str, dict[str, Any]]] = []
        self._position = 254  # so that the tests cross a byte's border

    def now_us(self) -> int:
        return self.bench.now_ms * 1000

    async def endpoint(self, name: str, *event_types: str, merchant_id: str = "mer_1", **changes: Any) -> str:
        """Create an endpoint; returns its URL."""
        sealed = await self.keys.encrypt(f"we_{name}", f"whsec_{name}".encode())
        secret = EndpointSecret(
            key_id=sealed.key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext, created_at=self.now_us()
        )
        endpoint = Endpoint(
            merchant_id=merchant_id,
            endpoint_id=f"we_{name}",
            url=f"https://{name}.example/",
            event_types=list(event_types or ("*",)),
            description="",
            status="ENABLED",
            secrets=[secret],
            created_at=self.now_us(),
            updated_at=self.now_us(),
        )
        self.endpoints.all[endpoint.endpoint_id] = msgspec.structs.replace(endpoint, **changes)
        return endpoint.url

    def change(self, name: str, **changes: Any) -> None:
        """What the endpoint's owner, or `records`, writes."""
        endpoint = self.endpoints.all[f"we_{name}"]
        self.endpoints.all[endpoint.endpoint_id] = msgspec.structs.replace(
            endpoint, updated_at=self.now_us(), **changes
        )

    def record(self, payment_id: str = "pay_1", sequence: int = 1, **changes: Any) -> Record:
        """The next record of the feed."""
        self._position += 1
        fields: dict[str, Any] = {
            "id": f"evt_{payment_id}_{sequence}",
            "type": "payment.created",
            "sequence": sequence,
            "occurred_at": self.now_us(),
            "merchant_id": "mer_1",
            "payment": payment(payment_id, sequence),
            "feed_sequence": self._position,
        }
        event = FeedEvent(**{**fields, **changes})
        return self.bench.record("merchants.events", event.merchant_id.encode(), event)

    async def run(self, record: Record) -> None:
        for sent in await self.bench.effect_async(self.handle, record):
            message = self._decode(sent.value)
            self.told.append((message.name, dict(message.fields)))

    async def feed(self, *events: tuple[str, int]) -> None:
        for payment_id, sequence in events:
            await self.run(self.record(payment_id, sequence))

    async def pass_time(self, milliseconds: int = 0) -> None:
        """Let time pass, then everything happen that is due."""
        fired = self.bench.advance(milliseconds)
        while fired:
            for timer in fired:
                await self.run(timer)
            fired = self.bench.advance(0)

    def attempts(self) -> list[tuple[str, int, str]]:
        return [(f["event_id"], f["attempt"], f["status"]) for name, f in self.told if name == "DeliveryAttempted"]

    def disabled(self) -> list[dict[str, Any]]:
        return [fields for name, fields in self.told if name == "EndpointDisabled"]


def payment(payment_id: str, version: int, personal_data: PersonalData | None = None) -> Payment:
    return Payment(
        payment_id=payment_id,
        merchant_id="mer_1",
        status=PaymentStatus.PENDING,
        amount=2500,
        currency="USD",
        personal_data=personal_data,
        client_secret_key_id="k1",
        version=version,
        revision=version,
        created_at=1,
        updated_at=1,
        expires_at=1,
    )


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


async def test_an_event_reaches_every_endpoint_that_wants_it_and_nobody_else(dispatcher: Dispatcher) -> None:
    both = [await dispatcher.endpoint("a", "payment.*"), await dispatcher.endpoint("b", "payment.created")]
    await dispatcher.endpoint("c", "settlement_batch.completed")
    await dispatcher.endpoint("d", "*", status="DISABLED")
    await dispatcher.endpoint("e", "*", merchant_id="mer_2")
    await dispatcher.feed(("pay_1", 1))
    await dispatcher.pass_time()
    assert sorted(dispatcher.receivers.got) == both
    assert dispatcher.attempts() == [("evt_pay_1_1", 1, "DELIVERED")] * 2
    assert dispatcher.bench.timers() == []


async def test_personal_data_is_in_the_body_and_nowhere_else(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.answers[url] = [failed()]
    plain = b'{"customer":{"email":"canary@example.com"},"description":"canary","metadata":{"order":"17"}}'
    sealed = await dispatcher.keys.encrypt("pay_1", plain)
    data = PersonalData(key_id=sealed.key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext)
    await dispatcher.run(dispatcher.record(payment=payment("pay_1", 1, data)))
    await dispatcher.pass_time()
    await dispatcher.pass_time(6_000)
    first, second = dispatcher.receivers.bodies[url]
    assert first == second
    shown = msgspec.json.decode(first)["data"]["object"]
    assert shown["customer"] == {"email": "canary@example.com"}
    assert (shown["description"], shown["metadata"]) == ("canary", {"order": "17"})
    assert "canary" not in repr((dispatcher.told, dispatcher.bench.rows(DELIVERIES)))


async def test_a_payments_events_arrive_in_order_whatever_fails(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.answers[url] = [failed(), failed()]
    await dispatcher.feed(("pay_1", 1), ("pay_1", 2))
    await dispatcher.pass_time()
    await dispatcher.feed(("pay_1", 3))
    await dispatcher.pass_time()
    assert dispatcher.receivers.sequences(url, "pay_1") == [1]
    await dispatcher.pass_time(6_000)
    await dispatcher.pass_time(34_000)
    assert dispatcher.receivers.sequences(url, "pay_1") == [1, 1, 1, 2, 3]
    assert dispatcher.bench.timers() == []
    assert [row for key, row in dispatcher.bench.rows(DELIVERIES) if key.startswith(b"d")] == []


async def test_a_failing_payment_blocks_no_other_payment_and_no_other_endpoint(dispatcher: Dispatcher) -> None:
    url, other = await dispatcher.endpoint("a"), await dispatcher.endpoint("b")
    dispatcher.receivers.answers[url] = [failed()]
    await dispatcher.feed(("pay_1", 1))
    await dispatcher.pass_time()
    await dispatcher.feed(("pay_1", 2), ("pay_2", 1))
    await dispatcher.pass_time()
    assert dispatcher.receivers.sequences(url, "pay_1") == [1]
    assert dispatcher.receivers.sequences(url, "pay_2") == [1]
    assert dispatcher.receivers.sequences(other, "pay_1") == [1, 2]


async def test_an_event_that_comes_while_its_queue_is_being_worked_on_is_not_forgotten(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.hold = asyncio.Event()
    await dispatcher.feed(("pay_1", 1))
    [timer] = dispatcher.bench.advance(0)
    attempt = asyncio.create_task(dispatcher.run(timer))
    await dispatcher.receivers.arrivals.acquire()
    await dispatcher.feed(("pay_1", 2))  # its feed is not held up by the slow endpoint
    [timer_of_second] = dispatcher.bench.timers()
    assert timer_of_second.name != timer.value.name  # or the end of the first attempt would cancel it
    dispatcher.receivers.hold.set()
    await attempt
    await dispatcher.pass_time()
    assert dispatcher.receivers.sequences(url, "pay_1") == [1, 2]


async def test_a_delivery_follows_the_schedule_and_then_lets_the_next_one_go(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.answers[url] = [failed()] * 10
    await dispatcher.feed(("pay_1", 1), ("pay_1", 2))
    await dispatcher.pass_time()
    waits: list[int] = []
    while dispatcher.receivers.sequences(url, "pay_1") != [1] * 10 + [2]:
        [timer] = dispatcher.bench.timers()
        waits.append(timer.due_ms - dispatcher.bench.now_ms)
        await dispatcher.pass_time(waits[-1])
    table_s = [5, 30, 120, 900, 3_600, 14_400, 43_200, 86_400, 86_400]
    assert all(0.9 <= wait / 1000 / seconds <= 1.1 for wait, seconds in zip(waits, table_s, strict=True))
    first = [(attempt, status) for event, attempt, status in dispatcher.attempts() if event == "evt_pay_1_1"]
    assert first == [(n, "PENDING") for n in range(1, 10)] + [(10, "FAILED")]
    assert dispatcher.attempts()[-1] == ("evt_pay_1_2", 1, "DELIVERED")


async def test_an_attempt_says_when_the_next_one_is(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.answers[url] = [failed(429, retry_after_ms=3_600_000)]
    await dispatcher.feed(("pay_1", 1))
    await dispatcher.pass_time()
    [(_, told)] = dispatcher.told
    assert told["next_attempt_at"] == dispatcher.now_us() + 3_600_000_000
    assert (told["http_status"], told["error"], told["payment_id"]) == (429, "answered 429", "pay_1")
    await dispatcher.pass_time(3_599_000)
    assert len(dispatcher.receivers.got[url]) == 1
    await dispatcher.pass_time(1_000)
    assert len(dispatcher.receivers.got[url]) == 2


async def test_gone_disables_at_once_until_the_owner_says_otherwise(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.answers[url] = [failed(410)]
    await dispatcher.feed(("pay_1", 1), ("pay_1", 2), ("pay_2", 1))
    await dispatcher.pass_time()
    await dispatcher.feed(("pay_3", 1))
    await dispatcher.pass_time(DAY_MS)
    assert len(dispatcher.receivers.got[url]) == 1
    assert {status for _, _, status in dispatcher.attempts()} == {"FAILED"}
    [told] = dispatcher.disabled()
    assert (told["endpoint_id"], told["reason"], told["merchant_id"]) == ("we_a", "gone", "mer_1")
    dispatcher.change("a", status="DISABLED")
    dispatcher.change("a", status="ENABLED")
    await dispatcher.feed(("pay_4", 1))
    await dispatcher.pass_time()
    assert dispatcher.receivers.sequences(url, "pay_4") == [1]


async def test_five_days_without_a_success_disable_and_one_success_starts_the_count_again(
    dispatcher: Dispatcher,
) -> None:
    url = await dispatcher.endpoint("a")

    async def fail_on(day: int) -> None:
        dispatcher.receivers.answers[url] = [failed()]
        await dispatcher.feed((f"pay_{day}", 1))
        await dispatcher.pass_time()
        dispatcher.receivers.answers[url] = [failed()] * 100
        await dispatcher.pass_time(DAY_MS)

    for day in range(4):
        await fail_on(day)
    dispatcher.receivers.answers[url] = []
    await dispatcher.feed(("pay_good", 1))
    await dispatcher.pass_time()
    for day in range(10, 15):
        assert dispatcher.disabled() == []
        await fail_on(day)
    await fail_on(15)
    [told] = dispatcher.disabled()
    assert told["reason"] == "failing"


async def test_a_new_endpoint_gets_the_first_event_after_it(dispatcher: Dispatcher) -> None:
    await dispatcher.feed(("pay_1", 1))  # the merchant has none yet, and that is now remembered
    url = await dispatcher.endpoint("a")
    await dispatcher.feed(("pay_2", 1))
    await dispatcher.pass_time()
    assert list(dispatcher.receivers.got) == [url]


async def test_a_backlog_reads_the_endpoints_once(dispatcher: Dispatcher) -> None:
    await dispatcher.endpoint("a")
    backlog = [dispatcher.record(f"pay_{number}") for number in range(50)]
    dispatcher.bench.advance(1)
    for record in backlog:
        await dispatcher.run(record)
    assert dispatcher.endpoints.reads == 1


async def test_a_deleted_endpoint_gets_nothing_more(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.answers[url] = [failed()]
    await dispatcher.feed(("pay_1", 1), ("pay_1", 2))
    await dispatcher.pass_time()
    del dispatcher.endpoints.all["we_a"]
    await dispatcher.pass_time(6_000)
    assert len(dispatcher.receivers.got[url]) == 1
    assert dispatcher.attempts()[1:] == [("evt_pay_1_1", 2, "FAILED"), ("evt_pay_1_2", 1, "FAILED")]
    assert dispatcher.bench.timers() == []


async def test_while_the_records_are_away_events_wait_in_order(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.endpoints.away = True
    await dispatcher.feed(("pay_1", 1), ("pay_1", 2))
    await dispatcher.pass_time(2_000)
    dispatcher.endpoints.away = False
    await dispatcher.feed(("pay_1", 3))  # it may not overtake those that wait
    assert dispatcher.receivers.got == {}
    await dispatcher.pass_time(2_000)
    assert dispatcher.receivers.sequences(url, "pay_1") == [1, 2, 3]
    await dispatcher.feed(("pay_1", 4))
    await dispatcher.pass_time(0)
    assert dispatcher.receivers.sequences(url, "pay_1") == [1, 2, 3, 4], "nothing waits any more"


async def test_an_event_that_runs_again_after_a_crash_is_not_delivered_again(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    record = dispatcher.record()
    await dispatcher.run(record)
    await dispatcher.pass_time()
    await dispatcher.run(record)
    await dispatcher.pass_time()
    assert dispatcher.receivers.sequences(url, "pay_1") == [1]


async def test_a_slow_endpoint_takes_no_more_than_its_share(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    dispatcher.receivers.hold = asyncio.Event()
    for number in range(SHARE_MAX + 5):
        await dispatcher.feed((f"pay_{number}", 1))
    attempts = [asyncio.create_task(dispatcher.run(timer)) for timer in dispatcher.bench.advance(0)]
    for _ in range(SHARE_MAX):
        await dispatcher.receivers.arrivals.acquire()
    await asyncio.gather(*attempts[SHARE_MAX:])
    for _ in range(20):  # the others look again, ever more seldom
        before = dispatcher.bench.now_ms
        await dispatcher.pass_time(dispatcher.bench.timers()[0].due_ms - before)
    assert dispatcher.bench.timers()[0].due_ms - dispatcher.bench.now_ms > 1_000
    assert len(dispatcher.receivers.got[url]) == SHARE_MAX
    dispatcher.receivers.hold.set()
    await asyncio.gather(*attempts)
    await dispatcher.pass_time(40_000)
    assert len(dispatcher.receivers.got[url]) == SHARE_MAX + 5


async def test_both_secrets_sign_while_one_replaces_the_other(dispatcher: Dispatcher) -> None:
    await dispatcher.endpoint("a")
    [secret] = dispatcher.endpoints.all["we_a"].secrets
    expiring = msgspec.structs.replace(secret, expires_at=dispatcher.now_us() + 10_000_000)
    dispatcher.change("a", secrets=[secret, expiring])
    await dispatcher.feed(("pay_1", 1))
    await dispatcher.pass_time()
    dispatcher.bench.advance(20_000)
    await dispatcher.feed(("pay_2", 1))
    await dispatcher.pass_time()
    assert [list(secrets) for secrets in dispatcher.receivers.secrets] == [["whsec_a", "whsec_a"], ["whsec_a"]]


async def test_a_completed_batch_is_told_too(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a", "settlement_batch.completed")
    batch = BatchSummary(
        batch_id="sb_1",
        settlement_date="2026-11-22",
        currency="USD",
        count=2,
        amount=200,
        settled_count=2,
        failed_count=0,
    )
    record = dispatcher.record(type="settlement_batch.completed", payment=None, batch=batch)
    await dispatcher.run(record)
    await dispatcher.pass_time()
    [document] = dispatcher.receivers.got[url]
    assert document["data"]["object"]["batch_id"] == "sb_1"
    assert dispatcher.told[0][1]["payment_id"] is None


async def test_personal_data_under_a_master_key_that_is_not_here_is_a_failed_attempt_and_not_the_end(
    dispatcher: Dispatcher,
) -> None:
    url = await dispatcher.endpoint("a")
    rotated = DataKeys(SecretKeys([SecretKey("m2", bytes(32))]), dispatcher.key_rows, dispatcher)
    sealed = await rotated.encrypt("pay_1", b"{}")
    data = PersonalData(key_id=sealed.key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext)
    await dispatcher.run(dispatcher.record(payment=payment("pay_1", 1, data)))
    await dispatcher.pass_time()
    assert dispatcher.attempts() == [("evt_pay_1_1", 1, "PENDING")]
    assert dispatcher.told[0][1]["error"] == "internal_error"
    assert dispatcher.receivers.got[url] == []
    assert len(dispatcher.bench.timers()) == 1


async def test_a_queue_whose_timer_became_a_dead_letter_is_taken_up_again(dispatcher: Dispatcher) -> None:
    url = await dispatcher.endpoint("a")
    await dispatcher.feed(("pay_1", 1))
    [timer] = dispatcher.bench.advance(0)

    async def bury(record: Record, state: Any, effects: Any) -> None:
        dispatcher.handle.rearm(record, RuntimeError("a bug"), state, effects)

    await dispatcher.bench.effect_async(bury, timer)
    await dispatcher.pass_time(3_600_000)
    assert dispatcher.receivers.sequences(url, "pay_1") == [1]
