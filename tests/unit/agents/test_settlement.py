"""Decider `settlement`: windows fill, barriers close days, chunks are cut in order, answers are counted once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from streams.agents.messages import message_of
from streams.agents.settlement import KINDS, STEPS_MAX, Settlement, SettlementOutputs
from streams.domain import ids
from streams.domain.envelope import PAYMENT_WORKER
from streams.domain.settlement import (
    DayBarrier,
    EntryAdded,
    EntryFailed,
    EntryRemoved,
    EntrySettled,
    SettlementCommand,
)
from streams.exactly_once.errors import Poison
from streams.exactly_once.records import Output, Record
from streams.exactly_once.testing import Bench
from tables.settlement import BATCHES, ENTRIES, WINDOWS
from tests.unit.agents.codecs import offline_codec
from topics.codec import Message

DAY1, DAY2, DAY3 = "2026-11-21", "2026-11-22", "2026-11-23"
SOURCES = 3
ANN, BOB = "mer_ann", "mer_bob"


def payment_id(number: int) -> str:
    return f"pay_{number:04}"


def _fields(number: int, day: str, merchant: str) -> dict[str, Any]:
    return {
        "id": f"entry:{number}:{day}",
        "occurred_at": 1,
        "actor": PAYMENT_WORKER,
        "request_id": "req_entry",
        "merchant_id": merchant,
        "currency": "USD",
        "settlement_date": day,
        "payment_id": payment_id(number),
        "amount": 100 + number,
    }


def added(number: int, day: str = DAY1, merchant: str = ANN) -> EntryAdded:
    return EntryAdded(transaction_id=f"txn_{number}", **_fields(number, day, merchant))


def removed(number: int, day: str = DAY1, merchant: str = ANN) -> EntryRemoved:
    return EntryRemoved(transaction_id=f"txn_{number}", **_fields(number, day, merchant))


def settled(number: int, day: str = DAY1, merchant: str = ANN, chunk: int = 0) -> EntrySettled:
    batch_id = ids.batch_id(merchant, "USD", day)
    return EntrySettled(batch_id=batch_id, chunk=chunk, **_fields(number, day, merchant))


def failed(number: int, day: str = DAY1, merchant: str = ANN, chunk: int = 0) -> EntryFailed:
    batch_id = ids.batch_id(merchant, "USD", day)
    return EntryFailed(batch_id=batch_id, chunk=chunk, retryable=False, **_fields(number, day, merchant))


def barriers(day: str, sources: Iterable[int] = range(SOURCES)) -> list[DayBarrier]:
    return [
        DayBarrier(
            id=f"barrier:{day}:{source}",
            occurred_at=1,
            actor=PAYMENT_WORKER,
            request_id=f"req_close_{day}",
            date=day,
            source_partition=source,
            source_partitions=SOURCES,
        )
        for source in sources
    ]


class SettlementBench:
    """The agent in partition 2 of 3, with chunks of three payments, and its output decoded."""

    def __init__(self) -> None:
        self.codec = offline_codec()
        outputs = SettlementOutputs(
            requests=self._output("settlement.requests"), events=self._output("settlement.events")
        )
        self.agent = Settlement(outputs, partitions=3, chunk_max=3)
        self.bench = Bench(partition=2)

    def _output(self, topic: str) -> Output:
        return Output(topic, self.codec.encoder(topic))

    def record(self, command: SettlementCommand) -> Record:
        message = message_of(command)
        key = "barrier" if isinstance(command, DayBarrier) else f"{command.merchant_id}:{command.currency}"
        topic = "settlement.entries"
        decoded = self.codec.value_decoder(topic, KINDS)(self.codec.encode(topic, message.name, message.fields))
        return self.bench.record(topic, key.encode(), decoded)

    def give(self, *commands: SettlementCommand) -> list[Message]:
        """What one batch of records sends."""
        return self._decide(*[self.record(command) for command in commands])

    def go_on(self) -> list[Message]:
        """What follows until no timer is set."""
        told: list[Message] = []
        while fired := self.bench.advance(1):
            told.extend(self._decide(*fired))
        return told

    def _decide(self, *records: Record) -> list[Message]:
        sent = self.bench.decide(self.agent, *records)
        for send in sent:
            expected = self.codec.decode(send.topic, send.value)
            if expected.name == "SettleChunkRequest":
                fields = expected.fields
                assert send.key == f"{fields['batch_id']}:{fields['chunk']}".encode()
        return [self.codec.decode(send.topic, send.value) for send in sent]

    def close(self, day: str) -> list[Message]:
        """All barriers of a day, and everything that follows."""
        return [*self.give(*barriers(day)), *self.go_on()]


@pytest.fixture
def settlement() -> SettlementBench:
    return SettlementBench()


def told(messages: list[Message], name: str) -> list[dict[str, Any]]:
    return [dict(message.fields) for message in messages if message.name == name]


def days_told(messages: list[Message]) -> list[tuple[str, int]]:
    return [(closed["date"], closed["batches"]) for closed in told(messages, "DayClosed")]


def test_a_day_closes_when_the_barriers_of_all_sources_are_there(settlement: SettlementBench) -> None:
    settlement.give(added(1), added(2))
    assert settlement.give(*barriers(DAY1, [0, 2])) == []

    messages = settlement.give(*barriers(DAY1, [1]))

    assert [message.name for message in messages] == ["ChunkClosed", "SettleChunkRequest", "DayClosed"]
    closed, request, day = (message.fields for message in messages)
    assert (request["count"], request["amount"]) == (2, 203)
    assert (request["first_payment_id"], request["last_payment_id"]) == (payment_id(1), payment_id(2))
    assert (closed["control_count"], closed["control_amount"]) == (2, 203)
    assert request["batch_id"] == ids.batch_id(ANN, "USD", DAY1)
    assert (day["date"], day["partition"], day["partitions"], day["batches"]) == (DAY1, 2, 3, 1)
    assert {fields["request_id"] for fields in (closed, request, day)} == {f"req_close_{DAY1}"}


def test_an_empty_partition_tells_of_the_day_too(settlement: SettlementBench) -> None:
    assert days_told(settlement.close(DAY1)) == [(DAY1, 0)]


def test_a_repeated_barrier_or_close_tells_nothing_again(settlement: SettlementBench) -> None:
    settlement.give(added(1))
    settlement.close(DAY1)
    assert settlement.close(DAY1) == []
    assert settlement.give(*barriers(DAY1, [0])) == []


def test_closing_a_day_closes_each_open_day_before_it(settlement: SettlementBench) -> None:
    settlement.close("2026-11-19")
    settlement.give(added(1, DAY1), added(2, DAY2), added(3, DAY3))
    messages = settlement.close(DAY2)
    assert days_told(messages) == [("2026-11-20", 0), (DAY1, 1), (DAY2, 1)]
    assert [key for key, _ in settlement.bench.rows(WINDOWS)] == [f"{DAY3}\0{ANN}\0USD".encode()]


def test_the_first_close_ever_begins_with_the_oldest_window(settlement: SettlementBench) -> None:
    settlement.give(added(1, DAY1))
    assert days_told(settlement.close(DAY2)) == [(DAY1, 1), (DAY2, 0)]


def test_chunks_are_cut_in_payment_order_a_few_at_a_time(settlement: SettlementBench) -> None:
    numbers = list(range(1, 18))
    settlement.give(*[added(number) for number in reversed(numbers)])

    first = settlement.give(*barriers(DAY1))
    assert len(told(first, "SettleChunkRequest")) == STEPS_MAX
    assert told(first, "DayClosed") == []
    rest = settlement.go_on()

    requests = told([*first, *rest], "SettleChunkRequest")
    assert [request["chunk"] for request in requests] == [0, 1, 2, 3, 4, 5]
    assert [request["count"] for request in requests] == [3, 3, 3, 3, 3, 2]
    bounds = [(request["first_payment_id"], request["last_payment_id"]) for request in requests]
    assert bounds == [(payment_id(n), payment_id(min(n + 2, 17))) for n in range(1, 18, 3)]
    assert sum(request["amount"] for request in requests) == sum(100 + number for number in numbers)
    assert days_told(rest) == [(DAY1, 1)]


def test_answers_that_come_while_chunks_are_cut_are_counted(settlement: SettlementBench) -> None:
    settlement.give(*[added(number) for number in range(1, 18)])
    settlement.give(*barriers(DAY1))
    settlement.give(*[settled(number, chunk=(number - 1) // 3) for number in range(1, 13)])

    rest = settlement.go_on()
    assert [request["first_payment_id"] for request in told(rest, "SettleChunkRequest")] == [
        payment_id(13),
        payment_id(16),
    ]
    (completed,) = told(
        settlement.give(*[settled(number, chunk=(number - 1) // 3) for number in range(13, 18)]), "BatchCompleted"
    )
    assert (completed["settled_count"], completed["chunks"]) == (17, 6)


def test_every_merchant_and_currency_has_its_own_batch(settlement: SettlementBench) -> None:
    settlement.give(added(1, merchant=ANN), added(2, merchant=BOB), added(3, merchant=ANN, day=DAY2))
    messages = settlement.close(DAY1)
    assert {(request["merchant_id"], request["count"]) for request in told(messages, "SettleChunkRequest")} == {
        (ANN, 1),
        (BOB, 1),
    }
    assert days_told(messages) == [(DAY1, 2)]


def test_a_repeated_entry_is_counted_once(settlement: SettlementBench) -> None:
    settlement.give(added(1), added(1))
    settlement.give(added(1))
    (request,) = told(settlement.close(DAY1), "SettleChunkRequest")
    assert (request["count"], request["amount"]) == (1, 101)
    assert settlement.give(added(1)) == []  # nor after its day has closed


def test_a_removed_entry_is_in_no_chunk(settlement: SettlementBench) -> None:
    settlement.give(added(1), added(2), removed(1), removed(1))
    (request,) = told(settlement.close(DAY1), "SettleChunkRequest")
    assert (request["count"], request["first_payment_id"]) == (1, payment_id(2))


def test_a_window_that_everybody_left_has_no_batch(settlement: SettlementBench) -> None:
    settlement.give(added(1), removed(1))
    assert days_told(settlement.close(DAY1)) == [(DAY1, 0)]


def test_an_entry_for_a_final_day_is_an_error(settlement: SettlementBench) -> None:
    settlement.close(DAY1)
    with pytest.raises(AssertionError, match="which is final"):
        settlement.give(added(1))
    settlement.give(added(2, DAY2))
    settlement.give(*barriers(DAY2, [0, 1]))
    settlement.give(added(3, DAY2))  # one source has not closed it yet


def test_a_batch_is_completed_by_its_last_answer_and_each_counts_once(settlement: SettlementBench) -> None:
    settlement.give(added(1), added(2), added(3))
    settlement.close(DAY1)

    assert settlement.give(settled(1), settled(1), failed(2), failed(2)) == []
    (completed,) = settlement.give(settled(3))

    assert completed.name == "BatchCompleted"
    counted = [completed.fields[name] for name in ("count", "amount", "settled_count", "settled_amount")]
    assert counted == [3, 306, 2, 204]
    assert (completed.fields["failed_count"], completed.fields["failed_amount"]) == (1, 102)
    assert settlement.give(settled(3)) == []
    assert settlement.bench.rows(ENTRIES) == settlement.bench.rows(BATCHES) == settlement.bench.rows(WINDOWS) == []


def test_a_rerun_gives_byte_identical_chunks() -> None:
    def run() -> list[bytes | None]:
        bench = SettlementBench()
        bench.give(*[added(number) for number in range(1, 8)])
        bench.close(DAY1)
        return [send.value for send in bench.bench.sent]

    assert run() == run()


def test_an_entry_under_another_key_is_poison(settlement: SettlementBench) -> None:
    record = settlement.record(added(1))
    record.key = b"mer_other:USD"
    with pytest.raises(Poison):
        settlement.bench.decide(settlement.agent, record)


def test_closing_goes_on_after_a_dead_letter(settlement: SettlementBench) -> None:
    settlement.give(*[added(number) for number in range(1, 18)])
    settlement.give(*barriers(DAY1))
    (fired,) = settlement.bench.advance(1)
    error = AssertionError("a bug")
    settlement.bench.decide(
        lambda batch, state, effects: settlement.agent.dead_letter(batch[0], error, state, effects), fired
    )
    settlement.bench.advance(0)
    assert len(settlement.bench.timers()) == 1
