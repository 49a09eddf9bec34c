"""How many commands a second one core decides: the pure function alone, and with all that a lane does around it but
Kafka and RocksDB (decode the command, find the row, decide, encode event, requests and changelog). The interpreter is
tuned as a worker's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from streams.agents.messages import message_of
from streams.agents.payments import COMMANDS, KINDS, OUTCOMES, Payments, PaymentsOutputs
from streams.app import dead_letter_output
from streams.domain import ids
from streams.domain.commands import (
    AuthorizationOutcome,
    ConfirmPayment,
    CreatePayment,
    Idempotency,
    PaymentCommand,
)
from streams.domain.decide import decide
from streams.domain.decision import Context
from streams.domain.envelope import Actor, ReplyTo
from streams.domain.payment import Fingerprint, PaymentRow, PaymentStatus, PersonalData, TransactionType
from streams.exactly_once.app import tune_interpreter
from streams.exactly_once.records import Output, Record
from streams.exactly_once.testing import Bench
from tables.payments import payments_table
from topics import catalog
from topics.codec import Codec
from topics.schemas import subjects

NOW_US = 1_790_000_000_000_000
WARM_UP = 50  # payments
BATCH = 500  # commands that a busy lane decides at once
MERCHANT = ids.derived(ids.MERCHANT, "bench")


class DecideSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run; commands per second of one core's CPU."""

    payments: int
    commands: int  # three of each payment: create, confirm, and the provider's outcome
    decide_per_s: float
    lane_per_s: float  # decode + decide + encode + changelog


def measure_decide(payments: int) -> DecideSpeed:
    """Decide `payments` payments from creation to authorisation, alone and as a lane does."""
    tune_interpreter()
    told = list(_commands(payments))
    context = Context(now_us=NOW_US, highest_us=NOW_US, last_closed_date=None)
    rows: dict[str, PaymentRow | None] = {}
    began = time.process_time()
    for command in told:
        rows[command.payment_id] = decide(rows.get(command.payment_id), command, context).row
    alone_s = time.process_time() - began
    return DecideSpeed(
        payments=payments,
        commands=len(told),
        decide_per_s=round(len(told) / alone_s),
        lane_per_s=round(len(told) / _lane_s(told)),
    )


def _lane_s(told: list[PaymentCommand]) -> float:
    """CPU seconds from the commands' bytes to the bytes of all that follows."""
    codec = Codec({subject.name: n for n, subject in enumerate(subjects(catalog.all_topics()), 1)}, lambda _: None)

    def output(topic: str) -> Output:
        return Output(topic, codec.encoder(topic))

    outputs = PaymentsOutputs(
        events=output("payments.events"),
        requests=output("provider.requests"),
        entries=output("settlement.entries"),
        given_up=dead_letter_output("payment-worker", OUTCOMES, codec),
    )
    table = payments_table(codec)
    agent = Payments(table, outputs, partitions=6, entry_partitions=3, intake_merchants=frozenset())

    def decide_all(told: list[PaymentCommand]) -> tuple[float, Bench]:
        appended = []
        for command in told:
            topic = OUTCOMES if isinstance(command, AuthorizationOutcome) else COMMANDS
            message = message_of(command)
            appended.append((topic, command.payment_id.encode(), codec.encode(topic, message.name, message.fields)))
        decode = {topic: codec.value_decoder(topic, kinds) for topic, kinds in KINDS.items()}
        bench = Bench(now_ms=NOW_US // 1000)
        began = time.process_time()
        for start in range(0, len(appended), BATCH):
            batch: list[Record] = [
                bench.record(topic, key, decode[topic](data), data=data)
                for topic, key, data in appended[start : start + BATCH]
            ]
            bench.decide(agent, *batch)
        return time.process_time() - began, bench

    decide_all(list(_commands(WARM_UP)))  # codecs are made when they are first used
    took_s, bench = decide_all(told)
    rows = [row for _, row in bench.rows(table)]
    assert all(row.payment.status is PaymentStatus.AUTHORIZED for row in rows), "not what is to be measured"
    return took_s


def _commands(payments: int) -> Iterator[PaymentCommand]:
    """Each payment's three, the way they come: many payments between two commands of one."""
    everyone = range(payments)
    yield from map(_create, everyone)
    yield from map(_confirm, everyone)
    yield from map(_authorized, everyone)


def _id(number: int) -> str:
    return ids.payment_id(MERCHANT, f"order {number}")


def _idempotency(number: int, what: str) -> Idempotency:
    mac = f"{what} {number}".encode().ljust(32, b".")
    return Idempotency(key_hash=mac, fingerprints=(Fingerprint(key_id="fk_1", mac=mac),))


def _create(number: int) -> CreatePayment:
    return CreatePayment(
        **_envelope(f"create {number}"),
        payment_id=_id(number),
        merchant_id=MERCHANT,
        amount=2500,
        currency="USD",
        personal_data=PersonalData(key_id="dk_1", nonce=b"n" * 12, ciphertext=b"c" * 160),
        client_secret_key_id="cs_1",  # noqa: S106
        expires_at=NOW_US + 86_400_000_000,
        idempotency=_idempotency(number, "create"),
    )


def _confirm(number: int) -> ConfirmPayment:
    return ConfirmPayment(
        **_envelope(f"confirm {number}"),
        payment_id=_id(number),
        merchant_id=MERCHANT,
        payment_method_token="pm_card_visa",  # noqa: S106
        idempotency_key=f"confirm {number}",
        idempotency=_idempotency(number, "confirm"),
    )


def _authorized(number: int) -> AuthorizationOutcome:
    return AuthorizationOutcome(
        **_envelope(f"authorized {number}"),
        payment_id=_id(number),
        transaction_id=ids.transaction_id(_id(number), TransactionType.AUTHORIZATION.value, 0),
        succeeded=True,
        provider_reference=f"sim_{number}",
        attempts=1,
    )


def _envelope(name: str) -> dict[str, Any]:
    return {
        "id": ids.derived(ids.EVENT, name),
        "occurred_at": NOW_US,
        "actor": Actor(identity="key_1", role="secret"),
        "request_id": f"req_{name}",
        "reply_to": ReplyTo(partition=1, correlation_id=name),
    }
