"""Who gets a webhook, when it is tried again, how it is signed, and what it says."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api import documents as api_documents
from streams.domain.delivery import ATTEMPTS_MAX, BatchSummary, FeedEvent, is_wanted, retry_delay_ms
from streams.domain.payment import (
    Payment,
    PaymentStatus,
    ProviderError,
    Transaction,
    TransactionStatus,
    TransactionType,
)
from streams.webhooks.documents import PersonalFields, batch_document, event_document, payment_document
from streams.webhooks.signing import MalformedSecret, new_secret, signed_headers

NOW_S = 1_795_372_800


@pytest.mark.parametrize(
    ("event_type", "patterns", "wanted"),
    [
        ("payment.settled", ["payment.*"], True),
        ("payment.settled", ["*"], True),
        ("payment.settled", ["payment.created", "payment.settled"], True),
        ("payment.settled", ["payment.created"], False),
        ("payment.settled", ["settlement_batch.*"], False),
        ("payment.settled", ["payment"], False),
        ("payment.settled", ["payment.settle"], False),
        ("payment.settled", [], False),
        ("settlement_batch.completed", ["payment.*"], False),
    ],
)
def test_an_endpoint_gets_what_it_subscribed_to(event_type: str, patterns: list[str], wanted: bool) -> None:
    assert is_wanted(event_type, patterns) is wanted


def test_retries_follow_the_contracts_table_within_ten_percent() -> None:
    table_s = [5, 30, 120, 900, 3_600, 14_400, 43_200, 86_400, 86_400]
    for attempt, seconds in enumerate(table_s, 1):
        delays = [retry_delay_ms(f"wd_{number}", attempt) for number in range(300)]
        known = [delay for delay in delays if delay is not None]
        assert len(known) == 300
        assert seconds * 900 <= min(known) < seconds * 930
        assert seconds * 1070 < max(known) <= seconds * 1100
    assert retry_delay_ms("wd_1", ATTEMPTS_MAX) is None
    assert ATTEMPTS_MAX == 10


def test_the_same_delivery_waits_the_same_time_on_every_replay() -> None:
    assert retry_delay_ms("wd_1", 3) == retry_delay_ms("wd_1", 3)


def test_retry_after_counts_where_it_is_longer() -> None:
    assert retry_delay_ms("wd_1", 1, 60_000) == 60_000
    assert retry_delay_ms("wd_1", 4, 60_000) == retry_delay_ms("wd_1", 4)
    assert retry_delay_ms("wd_1", 1, 10**12) == 86_400_000  # no receiver may ask for ever
    assert retry_delay_ms("wd_1", ATTEMPTS_MAX, 60_000) is None


def test_the_specifications_own_library_accepts_every_live_secret() -> None:
    old, new = new_secret(), new_secret()
    body = b'{"id": "evt_1"}'
    headers = signed_headers("evt_1", int(time.time()), body, [new, old])
    for secret in (old, new):
        assert Webhook(secret).verify(body, headers) == {"id": "evt_1"}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new).verify(body, {**headers, "webhook-id": "evt_2"})


def test_the_signature_is_the_one_that_the_specification_shows() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body, [secret])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_long_random_and_never_in_an_error() -> None:
    assert len(base64.b64decode(new_secret().removeprefix("whsec_"))) >= 24
    assert new_secret() != new_secret()
    with pytest.raises(MalformedSecret) as error:
        signed_headers("evt_1", NOW_S, b"", ["whsec_not base64"])
    assert "not base64" not in str(error.value).replace("is not base64", "")


def payment(**changes: Any) -> Payment:
    transaction = Transaction(
        transaction_id="txn_1",
        type=TransactionType.AUTHORIZATION,
        status=TransactionStatus.FAILED,
        amount=2500,
        currency="USD",
        idempotency_key="k",
        attempts=1,
        error=ProviderError(code="card_declined", decline_code="fraudulent", retryable=False, message="no"),
        created_at=NOW_S * 1_000_000,
        updated_at=NOW_S * 1_000_000 + 5,
    )
    plain = Payment(
        payment_id="pay_1",
        merchant_id="mer_1",
        status=PaymentStatus.DECLINED,
        amount=2500,
        currency="USD",
        client_secret_key_id="k1",
        version=3,
        revision=4,
        created_at=NOW_S * 1_000_000,
        updated_at=NOW_S * 1_000_000,
        expires_at=0,
        failure=transaction.error,
        transactions=(transaction,),
    )
    return msgspec.structs.replace(plain, **changes)


PERSONAL = PersonalFields(customer={"name": "Ann"}, description=None, metadata={"order": "17"})


def test_a_webhook_shows_the_payment_as_get_does_but_never_the_client_secret() -> None:
    shown = payment_document(payment(), PERSONAL)
    documented = [name for name in api_documents.PaymentDocument.__struct_fields__ if name != "client_secret"]
    assert list(shown) == documented
    msgspec.convert(shown, api_documents.PaymentDocument)
    assert shown["customer"] == {"name": "Ann"}
    assert shown["transactions"][0]["error"]["decline_code"] == "fraudulent"


def test_a_batch_is_shown_as_completed() -> None:
    batch = BatchSummary(
        batch_id="sb_1",
        settlement_date="2026-11-22",
        currency="USD",
        count=3,
        amount=300,
        settled_count=2,
        failed_count=1,
    )
    shown = batch_document("mer_1", batch)
    documented = set(api_documents.SettlementBatchDocument.__struct_fields__) - {"chunks"}
    assert set(shown) == documented
    assert shown["status"] == "COMPLETED"


def test_a_body_has_the_documented_members_in_the_documented_order() -> None:
    event = FeedEvent(
        id="evt_1",
        type="payment.declined",
        sequence=3,
        occurred_at=NOW_S * 1_000_000,
        merchant_id="mer_1",
        payment=payment(),
        feed_sequence=9,
    )
    shown = event_document(event, {"payment_id": "pay_1"})
    assert list(shown) == ["id", "type", "timestamp", "sequence", "data"]
    assert shown["timestamp"].endswith("Z")
    assert (shown["sequence"], shown["data"]) == (3, {"object": {"payment_id": "pay_1"}})
