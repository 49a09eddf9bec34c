"""Decider `feed`: numbers without gaps, repeats dropped, merchants apart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.agents.feed import KINDS, feed
from streams.agents.messages import message_of
from streams.domain.delivery import BatchSummary, MerchantEvent
from streams.exactly_once.errors import Poison
from streams.exactly_once.records import Output, Record
from streams.exactly_once.testing import Bench
from tests.unit.agents.codecs import offline_codec
from tests.unit.domain.payments_in_states import PATHS, after
from topics.codec import Message

BATCH = BatchSummary(
    batch_id="sb_1",
    settlement_date="2026-11-22",
    currency="USD",
    count=1,
    amount=1,
    settled_count=1,
    failed_count=0,
)


def event(event_id: str, sequence: int = 1, merchant: str = "mer_ann", **about: Any) -> MerchantEvent:
    return MerchantEvent(id=event_id, type="payment.x", sequence=sequence, occurred_at=1, merchant_id=merchant, **about)


def of_payment(sequence: int, merchant: str = "mer_ann") -> MerchantEvent:
    payment = after(*PATHS["SETTLED"]).payment
    return event(f"evt_{sequence}", sequence, merchant, payment=payment)


class FeedBench:
    def __init__(self) -> None:
        self.codec = offline_codec()
        self.handler = feed(Output("merchants.events", self.codec.encoder("merchants.events")))
        self.bench = Bench()

    def record(self, value: MerchantEvent, key: str | None = None) -> Record:
        message = message_of(value)
        topic = "merchants.inbox"
        decode = self.codec.value_decoder(topic, KINDS)
        decoded = decode(self.codec.encode(topic, message.name, message.fields))
        return self.bench.record(topic, (key or value.merchant_id).encode(), decoded)

    def give(self, *events: MerchantEvent) -> list[Message]:
        sent = self.bench.decide(self.handler, *[self.record(value) for value in events])
        return [self.codec.decode(send.topic, send.value) for send in sent]

    def numbers(self, *events: MerchantEvent) -> list[tuple[str, int]]:
        return [(message.fields["id"], message.fields["feed_sequence"]) for message in self.give(*events)]


@pytest.fixture
def bench() -> FeedBench:
    return FeedBench()


def test_events_are_numbered_from_one_without_gaps(bench: FeedBench) -> None:
    assert bench.numbers(of_payment(1), of_payment(2)) == [("evt_1", 1), ("evt_2", 2)]
    assert bench.numbers(of_payment(3)) == [("evt_3", 3)]


def test_each_merchant_has_its_own_numbers(bench: FeedBench) -> None:
    told = bench.numbers(of_payment(1), of_payment(1, "mer_bob"), of_payment(2))
    assert told == [("evt_1", 1), ("evt_1", 1), ("evt_2", 2)]


def test_what_is_told_twice_after_a_crash_is_in_the_feed_once(bench: FeedBench) -> None:
    bench.give(of_payment(1), of_payment(2), of_payment(3))
    assert bench.numbers(of_payment(2), of_payment(3), of_payment(4)) == [("evt_4", 4)]


def test_batches_and_endpoints_are_known_by_their_event(bench: FeedBench) -> None:
    batch, other = event("evt_a", batch=BATCH), event("evt_b", batch=BATCH)
    off, off_again = event("evt_c", endpoint_id="we_1"), event("evt_d", endpoint_id="we_1")
    told = bench.numbers(batch, batch, other, off, off, off_again, batch)
    assert told == [("evt_a", 1), ("evt_b", 2), ("evt_c", 3), ("evt_d", 4)]


def test_the_event_goes_on_as_it_came(bench: FeedBench) -> None:
    value = of_payment(1)
    (message,) = bench.give(value)
    assert message.name == "FeedEvent"
    assert message.fields["feed_sequence"] == 1
    came = {name: field for name, field in message.fields.items() if name != "feed_sequence"}
    assert msgspec.convert(came, MerchantEvent, strict=False) == value
    assert bench.bench.sent[0].key == b"mer_ann"


def test_another_merchant_s_key_is_poison(bench: FeedBench) -> None:
    with pytest.raises(Poison, match="not the merchant's id"):
        bench.bench.decide(bench.handler, bench.record(of_payment(1), key="mer_bob"))


def test_a_type_of_a_newer_release_is_skipped(bench: FeedBench) -> None:
    unknown = bench.bench.record("merchants.inbox", b"mer_ann", None)
    assert bench.bench.decide(bench.handler, unknown) == []
