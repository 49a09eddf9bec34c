"""One payment on its whole road, steps 2 to 6 and 8: decider, gateway, breaker and the real simulator, on one clock.

The clock is stepped: a call that runs into its time-out is over soon here, and counts as the 5 s of the local stack.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import aiohttp
from prometheus_client import CollectorRegistry

from streams.agents import authorizations as gateway
from streams.agents.payments import COMMANDS, KINDS, OUTCOMES, Payments, PaymentsOutputs
from streams.app import dead_letter_output
from streams.domain import ids
from streams.domain.commands import SettlementOutcome
from streams.domain.envelope import Command
from streams.domain.payment import Payment, PaymentRow, PaymentStatus, Transaction, TransactionType
from streams.domain.requests import ProviderRequest
from streams.exactly_once.records import Output, Record
from streams.exactly_once.testing import Bench
from streams.provider.breaker import BreakingProvider
from streams.provider.classification import unavailable
from streams.provider.port import Answer, Operation, QueryAnswer, Settle, SettlementItem, Succeeded, Unknown
from streams.provider.simulator import SimulatorProvider
from tables.payments import payments_table
from tests.unit.agents.codecs import offline_codec
from tests.unit.domain.payments_in_states import GATEWAY, NOW_US, PAYMENT, confirm, create, envelope
from topics.codec import Message

TIMEOUT_MS = 5_000  # of the local stack
KEY = PAYMENT.encode()
OPEN = (PaymentStatus.PENDING, PaymentStatus.PROCESSING)


class Watched:
    """The provider as the gateway reaches it: counts sends, lets queries fail as told, and takes modelled time."""

    def __init__(self, provider: SimulatorProvider, bench: Bench) -> None:
        self._provider = provider
        self._bench = bench
        self.sends: Counter[str] = Counter()
        self.queries = 0
        self.queries_to_fail = 0

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def check(self) -> None: ...

    async def send(self, operation: Operation) -> Answer:
        self.sends[operation.key] += 1
        began = time.monotonic()
        answer = await self._provider.send(operation)
        self._took(answer, began)
        return answer

    async def query(self, operation: Operation) -> QueryAnswer:
        self.queries += 1
        if self.queries_to_fail:
            self.queries_to_fail -= 1
            return Unknown(error=unavailable("the query failed"))
        began = time.monotonic()
        answer = await self._provider.query(operation)
        self._took(answer, began)
        return answer

    def _took(self, answer: Answer | QueryAnswer, began: float) -> None:
        silent = isinstance(answer, Unknown) and "in time" in answer.error.message
        self._bench.now_ms += TIMEOUT_MS if silent else round((time.monotonic() - began) * 1000)


class Road:
    """A payment that was created, and everything that it meets."""

    def __init__(self, provider: SimulatorProvider) -> None:
        self.codec = offline_codec()
        self.bench = Bench(now_ms=NOW_US // 1000)
        self.registry = CollectorRegistry()
        self.provider = Watched(provider, self.bench)
        breaker = BreakingProvider(self.provider, monotonic_s=lambda: self.bench.now_ms / 1000)
        self.table = payments_table(self.codec)
        requests = self._output("provider.requests")
        outputs = PaymentsOutputs(
            events=self._output("payments.events"),
            requests=requests,
            entries=self._output("settlement.entries"),
            given_up=dead_letter_output("payment-worker", OUTCOMES, self.codec),
        )
        self.agent = Payments(self.table, outputs, partitions=6, entry_partitions=3)
        self.gateway = gateway.authorizations(breaker, self._output(OUTCOMES), self, registry=self.registry)
        self._request = self.codec.value_decoder("provider.requests", gateway.KINDS)
        self.requests: list[ProviderRequest] = []
        self.letters: list[Message] = []  # dead letters of operations that were given up
        self.give(create())

    def now_us(self) -> int:
        """As a clock for the gateway."""
        return self.bench.now_ms * 1000

    @property
    def payment(self) -> Payment:
        row = self.bench.row(self.table, KEY)
        assert isinstance(row, PaymentRow)
        return row.payment

    @property
    def status(self) -> PaymentStatus:
        return self.payment.status

    def transaction(self, kind: TransactionType) -> Transaction:
        """The payment's last transaction of this kind."""
        return [each for each in self.payment.transactions if each.type is kind][-1]

    def give(self, *commands: Command) -> None:
        """Let the payment decide on a client's commands."""
        self._decide(*(self._record(COMMANDS, self._data(COMMANDS, command)) for command in commands))

    def begin(self, token: str) -> None:
        """Step 5, with this token; the request waits for the gateway."""
        self.give(confirm(payment_method_token=token))

    async def confirm(self, token: str) -> int:
        """Confirm with this token; returns how many modelled milliseconds it took until the payment was decided."""
        began_ms = self.bench.now_ms
        self.begin(token)
        await self.go_on(lambda: self.status not in OPEN)
        return self.bench.now_ms - began_ms

    async def go_on(self, is_over: Callable[[], bool]) -> None:
        """Requests go to the provider, outcomes come back, timers fire when nothing else is left to do."""
        for _ in range(200):
            if not self.requests and is_over():
                return
            await self.step()
        raise AssertionError("never decided")

    async def step(self) -> None:
        """The next request, or else the next timer."""
        if self.requests:
            await self.call()
        else:
            self.next_timer()

    async def call(self, *, dies: bool = False) -> None:
        """The gateway handles the next request. `dies`: before it could commit, so the request stays."""
        request = self.requests[0] if dies else self.requests.pop(0)
        record = self.bench.record("provider.requests", KEY, request)
        sent = await self.bench.effect_async(self.gateway, record)
        if not dies:
            self._decide(*(self._record(OUTCOMES, send.value) for send in sent))

    def next_timer(self) -> None:
        """Nothing happens until the next timer."""
        due_ms = self.bench.timers()[0].due_ms
        self._decide(*self.bench.advance(max(0, due_ms - self.bench.now_ms)))

    async def settle(self) -> bool:
        """Step 8: captured as the only item of its batch, or refused; True when captured."""
        payment = self.payment
        assert payment.batch_id is not None
        assert payment.settlement_date is not None
        transaction_id = ids.settlement_transaction_id(PAYMENT, payment.settlement_date)
        item = SettlementItem(key=transaction_id, payment_id=PAYMENT, amount=payment.amount, currency=payment.currency)
        chunk = Settle(key=f"{payment.batch_id}:0", batch_id=payment.batch_id, chunk=0, items=(item,))
        answer = await self.provider.send(chunk)
        assert isinstance(answer, Succeeded)
        (result,) = answer.items
        outcome = SettlementOutcome(
            **envelope(f"settled {payment.settlement_date}", GATEWAY),
            transaction_id=transaction_id,
            batch_id=payment.batch_id,
            chunk=0,
            succeeded=result.error is None,
            error=result.error,
        )
        self._decide(self._record(OUTCOMES, self._data(OUTCOMES, outcome)))
        return result.error is None

    def _decide(self, *records: Record) -> None:
        for send in self.bench.decide(self.agent, *records):
            if send.topic == "provider.requests":
                self.requests.append(self._request(send.value))
            elif send.topic == "provider.outcomes.dlq":
                assert send.value is not None
                self.letters.append(self.codec.decode(send.topic, send.value))

    def _output(self, topic: str) -> Output:
        return Output(topic, self.codec.encoder(topic))

    def _record(self, topic: str, data: bytes | None) -> Record:
        return self.bench.record(topic, KEY, self.codec.value_decoder(topic, KINDS[topic])(data), data=data)

    def _data(self, topic: str, value: Command) -> bytes:
        return self.codec.encode(topic, type(value).__name__, value)


async def movements(gateway: aiohttp.ClientSession) -> list[str]:
    """What the provider's ledger holds."""
    async with gateway.get("/v1/ledger", params={"limit": "100"}) as response:
        return [movement["type"] for movement in (await response.json())["data"]]
