"""A payment among clients that repeat themselves, a provider that loses answers, and time, at random.

The provider here is a naive ledger that knows nothing of our states. Whatever happens: every event is a legal step,
versions are 1..n, and no money moves twice. And once the provider behaves again, every payment is decided and says
what the ledger says.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.domain import ids
from streams.domain.commands import (
    AttemptFailed,
    AuthorizationOutcome,
    PaymentCommand,
    RefundOutcome,
    SettlementOutcome,
    VoidOutcome,
)
from streams.domain.decide import decide
from streams.domain.decision import SetTimer
from streams.domain.events import PaymentEvent
from streams.domain.payment import Payment, PaymentRow, PaymentStatus, ProviderError
from streams.domain.requests import AuthorizeRequest, ProviderRequest, RefundRequest, VoidRequest
from streams.domain.settlement import Entry, EntryAdded, EntryFailed, EntryRemoved, EntrySettled
from streams.domain.settlement_days import DAY_US, day_of
from streams.domain.transitions import evolve
from tests.unit.domain.payments_in_states import (
    AMOUNT,
    BUSY,
    DECLINED,
    MERCHANT,
    NOW_US,
    PAYMENT,
    REFUSED,
    cancel,
    confirm,
    context,
    create,
    envelope,
    refund,
)

RETRYABLE = ProviderError(code="settlement_failed", retryable=True, message="not today")
OUTCOMES: dict[type[ProviderRequest], type[AuthorizationOutcome | VoidOutcome | RefundOutcome]] = {
    AuthorizeRequest: AuthorizationOutcome,
    VoidRequest: VoidOutcome,
    RefundRequest: RefundOutcome,
}

MOODS: dict[str, tuple[list[str], list[bool]]] = {
    "well": (["answered"], [True]),
    "flaky": (["answered", "answer lost", "lost", "busy", "forgotten", "kept"], [True, True, False]),
    "silent": (["answer lost", "lost"], [True]),
    "down": (["busy", "busy", "busy", "lost"], [True]),
    "crashing": (["died, then busy", "busy", "busy"], [True]),
    "unwilling": (["answered", "kept"], [False]),
}
"""What may become of a request, and whether the provider would do what is asked."""


class Ledger:
    """The provider: one result per idempotency key, and the money."""

    def __init__(self) -> None:
        self.results: dict[str, bool] = {}
        self.tombstones: set[str] = set()
        self.authorized = self.voided = self.captured = self.refunded = 0

    @property
    def holds(self) -> bool:
        return self.authorized > self.voided

    def process(self, request: ProviderRequest, *, willing: bool) -> bool:
        """The result of a request: the same as ever for a key that was seen."""
        key = request.transaction_id
        if key not in self.results:
            self.results[key] = willing and self._move(request)
        return self.results[key]

    def _move(self, request: ProviderRequest) -> bool:
        match request:
            case AuthorizeRequest():
                if request.transaction_id in self.tombstones:
                    return False
                self.authorized += 1
            case VoidRequest():
                assert not self.captured, "a void of captured money"
                self.tombstones.add(request.authorization_id)
                self.voided += self.holds
            case RefundRequest():
                self.refunded += request.amount
        return True

    def capture(self) -> None:
        assert self.holds, "a capture without a hold"
        self.captured += 1


class PaymentWalk(RuleBasedStateMachine):
    """Clients, provider, settlement and clock take turns in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.row: PaymentRow | None = None
        self.folded: Payment | None = None
        self.now_us = NOW_US
        self.last_closed: str | None = None
        self.requests: list[ProviderRequest] = []
        self.timers: dict[str, SetTimer] = {}
        self.told: list[PaymentCommand] = []
        self.windows: dict[str, bool] = {}  # day -> the payment is in it
        self.ledger = Ledger()
        self.count = 0
        self.moods = ["well", "well"]

    def give(self, command: PaymentCommand) -> None:
        """Let the payment decide, and take note of all that follows."""
        seen = context(now_us=self.now_us, highest_us=self.now_us, last_closed_date=self.last_closed)
        decision = decide(self.row, command, seen)
        if isinstance(decision.event, PaymentEvent):
            self.folded = evolve(self.folded, decision.event)
        self.row = decision.row or self.row
        self.requests.extend(decision.requests)
        for entry in decision.entries:
            self._enter(entry)
        for timer in decision.timers:
            if isinstance(timer, SetTimer):
                self.timers[timer.name] = timer
            else:
                self.timers.pop(timer.name, None)

    def _enter(self, entry: Entry) -> None:
        is_open = self.last_closed is None or entry.settlement_date > self.last_closed
        match entry:
            case EntryAdded():
                assert is_open, "an entry for a closed day"
                assert not any(self.windows.values()), "in two windows at once"
                self.windows[entry.settlement_date] = True
            case EntryRemoved():
                assert is_open, "a payment leaves a closed day"
                assert self.windows.pop(entry.settlement_date), "a payment leaves where it never was"
            case EntrySettled() | EntryFailed():
                assert self.windows.pop(entry.settlement_date), "an answer was counted twice"
            case _:
                raise AssertionError(entry)

    def _named(self, what: str) -> str:
        self.count += 1
        return f"{what} {self.count}"

    @initialize(moods=st.lists(st.sampled_from(sorted(MOODS)), min_size=2, max_size=2), confirmed=st.booleans())
    def created(self, moods: list[str], confirmed: bool) -> None:
        """The provider has a mood while it authorises, and another afterwards; or else no walk would get far."""
        self.moods = moods
        self.give(create())
        if confirmed:
            self.give(confirm())

    @rule(what=st.sampled_from([confirm, cancel, refund]), again=st.booleans())
    def a_client_asks_for_anything(self, what: object, again: bool) -> None:
        name = "again" if again else self._named("key")
        self.give(refund(key=name) if what is refund else confirm(name) if what is confirm else cancel(name))

    @precondition(lambda self: self.row and self.row.payment.status is PaymentStatus.PENDING)
    @rule()
    def the_customer_confirms(self) -> None:
        self.give(confirm(self._named("key")))

    @precondition(lambda self: self.row and self.row.payment.status is PaymentStatus.SETTLED)
    @rule(amount=st.integers(1, AMOUNT))
    def the_merchant_refunds(self, amount: int) -> None:
        self.give(refund(amount, key=self._named("key")))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def provider_gets_a_request(self, data: st.DataObject) -> None:
        authorizing = self.row is not None and self.row.payment.status is PaymentStatus.PROCESSING
        fates, willing_in = MOODS[self.moods[0 if authorizing else 1]]
        fate, willing = data.draw(st.sampled_from(fates)), data.draw(st.sampled_from(willing_in))
        index = data.draw(st.integers(0, len(self.requests) - 1))
        request = self.requests[index] if fate == "kept" else self.requests.pop(index)
        known = self.ledger.results.get(request.transaction_id)
        if request.query_first and known is not None and fate not in ("lost", "forgotten"):
            self._tell(self._outcome(request, known))
        elif fate in ("answered", "kept"):
            self._tell(self._outcome(request, self.ledger.process(request, willing=willing)))
        elif fate == "died, then busy":  # the gateway, after the send; its successor's send meets a busy provider
            result = self.ledger.process(request, willing=willing)
            asked = request.query_first
            self._tell(self._outcome(request, result) if asked else self._failed(request, known=True))
        elif fate == "busy":
            self._tell(self._failed(request, known=True))
        else:
            if fate == "answer lost":
                self.ledger.process(request, willing=willing)
            if fate != "forgotten":
                self._tell(self._failed(request, known=False))

    def _outcome(self, request: ProviderRequest, succeeded: bool) -> PaymentCommand:
        error = DECLINED if isinstance(request, AuthorizeRequest) else REFUSED
        return OUTCOMES[type(request)](
            **self._about(request),
            succeeded=succeeded,
            provider_reference="ref",
            error=None if succeeded else error,
            attempts=request.attempt,
        )

    def _failed(self, request: ProviderRequest, *, known: bool) -> PaymentCommand:
        attempt: dict[str, Any] = {"operation": "X", "attempt": request.attempt, "outcome_known": known, "error": BUSY}
        return AttemptFailed(**self._about(request), **attempt)

    def _about(self, request: ProviderRequest) -> dict[str, Any]:
        return envelope(self._named("told"), occurred_at=self.now_us, transaction_id=request.transaction_id)

    def _tell(self, command: PaymentCommand) -> None:
        self.told.append(command)
        self.give(command)

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def an_answer_comes_again(self, data: st.DataObject) -> None:
        self.give(data.draw(st.sampled_from(self.told)))

    @precondition(lambda self: self.timers)
    @rule()
    def a_timer_fires(self) -> None:
        timer = min(self.timers.values(), key=lambda each: (each.due_us, each.name))
        del self.timers[timer.name]
        self.now_us = max(self.now_us, timer.due_us)
        self.give(timer.command)

    @precondition(lambda self: any(self.windows.values()))
    @rule()
    def a_day_closes(self) -> None:
        self.last_closed = max(day_of(self.now_us), self.last_closed or "")
        self.now_us += DAY_US

    @precondition(lambda self: any(day <= (self.last_closed or "") for day in self.windows))
    @rule(answer=st.sampled_from(["captured", "captured", "not today", "refused"]))
    def the_provider_settles(self, answer: str) -> None:
        """Its answer for the payment as an item of a closed day's batch."""
        for day in [day for day in self.windows if day <= (self.last_closed or "")]:
            if answer == "captured":
                self.ledger.capture()
            error = {"captured": None, "not today": RETRYABLE, "refused": REFUSED}[answer]
            self._tell(
                SettlementOutcome(
                    **envelope(self._named("settled"), occurred_at=self.now_us),
                    transaction_id=ids.settlement_transaction_id(PAYMENT, day),
                    batch_id=ids.batch_id(MERCHANT, "USD", day),
                    chunk=0,
                    succeeded=error is None,
                    error=error,
                )
            )

    @invariant()
    def the_fold_of_events_is_the_row(self) -> None:
        if self.row is not None:
            assert self.folded == self.row.payment

    @invariant()
    def money_moves_at_most_once(self) -> None:
        ledger = self.ledger
        assert ledger.authorized <= 1
        assert ledger.captured <= 1
        assert not (ledger.captured and ledger.voided)
        assert ledger.refunded <= ledger.captured * AMOUNT

    @invariant()
    def a_payment_is_in_a_window_exactly_while_it_says_so(self) -> None:
        if self.row is not None and self.row.payment.status is PaymentStatus.AUTHORIZED:
            inside = [day for day, held in self.windows.items() if held]
            assert inside == ([self.row.payment.settlement_date] if self.row.payment.settlement_date else [])

    def teardown(self) -> None:
        """The provider behaves again: everything is decided, and as the ledger has it."""
        if self.row is None:
            return
        for _ in range(200):
            while self.requests:
                request = self.requests.pop()
                self._tell(self._outcome(request, self.ledger.process(request, willing=True)))
            if not self.timers:
                break
            self.a_timer_fires()
        payment = self.row.payment
        assert self.row.operations == ()
        assert payment.status not in (PaymentStatus.PENDING, PaymentStatus.PROCESSING)
        captured = payment.status in (PaymentStatus.SETTLED, PaymentStatus.REFUNDED)
        assert bool(self.ledger.captured) == captured
        assert payment.amount_refunded == self.ledger.refunded
        assert self.ledger.holds == (captured or payment.status is PaymentStatus.AUTHORIZED or self._hold_stays())

    def _hold_stays(self) -> bool:
        """True where settlement failed and the provider refused to release the hold."""
        assert self.row is not None
        last = self.row.payment.transactions[-1:]
        return bool(last) and last[0].error is not None and last[0].error.code == "void_refused"


TestPaymentWalk = PaymentWalk.TestCase
TestPaymentWalk.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[HealthCheck.too_slow],
)
