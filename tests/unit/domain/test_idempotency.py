"""A key's first answer is its answer: replays, reuse, refusals that are kept, and the limit of keys."""

from __future__ import annotations

import pytest

from streams.domain.commands import CreatePayment, Idempotency
from streams.domain.events import CommandRejected, CommandRepeated, PaymentCreated, PaymentProcessing
from streams.domain.fingerprint import FingerprintKey, canonical, idempotency, is_same
from streams.domain.idempotency import KEPT_MAX
from streams.domain.payment import Fingerprint
from streams.domain.rejections import Rejection
from tests.unit.domain import payments_in_states as having
from tests.unit.domain.payments_in_states import (
    MERCHANT,
    PATHS,
    after,
    cancel,
    confirm,
    continued,
    create,
    decided_after,
    row_in,
)


def _code(decision_event: object) -> str:
    assert isinstance(decision_event, CommandRejected)
    return decision_event.code


def test_a_replay_gives_the_acceptance_whatever_the_payment_has_become_since() -> None:
    for state in ("PENDING", "AUTHORIZED", "REFUNDED", "EXPIRED"):
        decision = decided_after(row_in(state), create())
        assert isinstance(decision.event, CommandRepeated)
        answer = (decision.event.status_code, decision.event.revision, decision.event.payment_status)
        assert answer == (201, 1, "PENDING")
        assert decision.row is None


def test_each_operation_s_answer_points_to_its_own_revision() -> None:
    row = after(*PATHS["VOIDING"])
    answers = []
    for command in (create(), confirm(), cancel()):
        event = decided_after(row, command).event
        assert isinstance(event, CommandRepeated)
        answers.append((event.status_code, event.revision))
    assert answers == [(201, 1), (202, 2), (202, 4)]


def test_another_body_under_the_same_key_is_refused_without_effect() -> None:
    other = confirm(idempotency=having.idempotency("confirm", request="another card"))
    decision = decided_after(row_in("PROCESSING"), other)
    assert _code(decision.event) == "idempotency_key_reused"
    assert decision.row is None


def test_the_same_key_for_another_operation_is_another_key() -> None:
    row = after(create("same"), confirm("same"))
    event = decided_after(row, cancel("same")).event
    assert _code(event) == "invalid_state"


def test_409_and_422_are_kept_and_given_again() -> None:
    refused = decided_after(row_in("PROCESSING"), cancel())
    assert isinstance(refused.event, CommandRejected)
    assert refused.event.idempotency_kept
    assert refused.row is not None
    authorised = continued(refused.row, having.authorized())

    replay = decided_after(authorised, cancel())  # by now a cancel would be accepted

    assert isinstance(replay.event, CommandRepeated)
    answer = (replay.event.code, replay.event.status_code, replay.event.payment_status)
    assert answer == ("invalid_state", 409, "PROCESSING")


def test_a_kept_refusal_revises_no_payment() -> None:
    row = row_in("PROCESSING")
    refused = decided_after(row, cancel())
    assert refused.row is not None
    assert row is not None
    assert (refused.row.payment, refused.row.last_event_id) == (row.payment, row.last_event_id)


def test_another_merchant_s_payment_is_not_found_and_says_nothing() -> None:
    for command in (confirm(merchant_id="mer_other"), create(merchant_id="mer_other")):
        event = decided_after(row_in("AUTHORIZED"), command).event
        assert isinstance(event, CommandRejected)
        told = (event.code, event.merchant_id, event.payment_status, event.idempotency_kept)
        assert told == ("not_found", "mer_other", None, False)


def test_a_create_without_a_key_is_known_by_its_own_id() -> None:
    row = after(create(None))
    assert isinstance(decided_after(row, create(None)).event, CommandRepeated)
    assert _code(decided_after(row, create(None, id="cmd_other")).event) == "invalid_state"


def test_a_browser_s_many_keys_are_refused_and_cannot_block_the_merchant() -> None:
    row = after(create(), confirm())
    for number in range(KEPT_MAX - 2):
        row = continued(row, confirm(f"try {number}"))
    assert len(row.idempotency) == KEPT_MAX

    decision = decided_after(row, confirm("one more"))
    assert _code(decision.event) == "rate_limited"
    assert decision.row is None

    canceled = continued(row, having.authorized(), cancel())
    kept = [(outcome.operation, outcome.code) for outcome in canceled.idempotency]
    assert len(kept) == KEPT_MAX
    assert [operation for operation, code in kept if code is None] == ["create", "confirm", "cancel"]


def test_acceptances_are_never_evicted() -> None:
    row = after(*having.PATHS["SETTLED"])
    for number in range(KEPT_MAX - 2):
        row = continued(row, having.refund(1, key=f"refund {number}"))
    decision = decided_after(row, having.refund(1, key="one more"))
    assert _code(decision.event) == "rate_limited"
    assert (decision.row, decision.requests) == (None, ())


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (create(amount=0), "amount_invalid"),
        (create(amount=100_000_000_000, currency="XXX"), "amount_invalid"),  # the first of two that apply
        (create(currency="XAU"), "currency_invalid"),
        (create(currency="usd"), "currency_invalid"),
    ],
)
def test_an_internal_producer_s_create_is_validated_as_the_api_s(command: CreatePayment, code: str) -> None:
    decision = decided_after(None, command)
    assert _code(decision.event) == code
    assert decision.row is None


def test_an_internal_producer_creates_for_its_merchants_only() -> None:
    assert _code(decided_after(None, create(), creates_for=frozenset({"mer_other"})).event) == "forbidden"
    assert isinstance(decided_after(None, create(), creates_for=frozenset({MERCHANT})).event, PaymentCreated)


def test_rejections_have_a_fixed_precedence() -> None:
    assert [rejection.value for rejection in Rejection] == [
        "amount_invalid",
        "currency_invalid",
        "forbidden",
        "not_found",
        "idempotency_key_reused",
        "invalid_state",
        "payment_in_settlement",
        "amount_exceeds_refundable",
        "rate_limited",
    ]
    kept = {rejection.value for rejection in Rejection if rejection.is_kept}
    assert kept == {"invalid_state", "payment_in_settlement", "amount_exceeds_refundable"}
    assert [rejection for rejection in Rejection if rejection.is_transient] == [Rejection.TOO_MANY_KEYS]


OLD, NEW = FingerprintKey(key_id="fk_1", secret=b"1" * 32), FingerprintKey(key_id="fk_2", secret=b"2" * 32)


def _request(amount: int, *keys: FingerprintKey) -> Idempotency:
    return idempotency(MERCHANT, "key", {"amount": amount, "customer": {"name": "Ann"}}, keys)


def test_a_retry_is_the_same_request_before_during_and_after_a_rotation_of_keys() -> None:
    (kept,) = _request(1, OLD).fingerprints
    assert is_same(kept, _request(1, OLD).fingerprints)
    assert is_same(kept, _request(1, NEW, OLD).fingerprints)
    assert is_same(kept, _request(1, NEW).fingerprints)  # cannot be compared any more: never a 422
    assert not is_same(kept, _request(2, NEW, OLD).fingerprints)


def test_a_fingerprint_does_not_depend_on_the_order_of_fields_and_hides_the_request() -> None:
    assert canonical({"b": 1, "a": {"d": "é", "c": None}}) == '{"a":{"c":null,"d":"é"},"b":1}'.encode()
    assert b"Ann" not in _request(1, OLD).fingerprints[0].mac
    assert idempotency("mer_2", "key", {}, [OLD]).key_hash != _request(1, OLD).key_hash


def test_the_newest_key_s_fingerprint_is_kept() -> None:
    both = (Fingerprint(key_id="fk_2", mac=b"n"), Fingerprint(key_id="fk_1", mac=b"o"))
    row = after(create(idempotency=Idempotency(key_hash=b"k", fingerprints=both)))
    assert row.idempotency[0].fingerprint == both[0]


def test_a_command_that_comes_twice_has_one_effect() -> None:
    first = decided_after(row_in("PENDING"), confirm())
    assert isinstance(first.event, PaymentProcessing)
    second = decided_after(first.row, confirm())
    assert isinstance(second.event, CommandRepeated)
    assert (second.row, second.requests, second.timers) == (None, (), ())
