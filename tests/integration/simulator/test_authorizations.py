"""Step 6 (Authorise): the `authorizations` agent against the real simulator, as the payments agent drives it.

The driver below does what the payment's decider does: another request for each failed attempt, asking first once an
outcome is in doubt.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from ops.runtime.clock import SystemClock
from streams.agents.authorizations import authorizations
from streams.domain.envelope import Actor, ReplyTo
from streams.domain.requests import AuthorizeRequest, ProviderRequest, RefundRequest, VoidRequest
from streams.exactly_once.records import Output
from streams.exactly_once.testing import Bench
from streams.provider.simulator import SimulatorProvider
from topics import catalog
from topics.codec import Codec, Message
from topics.schemas import subjects

TOPIC = "provider.outcomes"


@pytest.fixture
def codec() -> Codec:
    """The real schemas under ids of the test's own."""
    return Codec({subject.name: number for number, subject in enumerate(subjects(catalog.TOPICS), 1)}, lambda _: None)


class Gateway:
    """The agent on a bench."""

    def __init__(self, provider: SimulatorProvider, codec: Codec) -> None:
        self._codec = codec
        self._bench = Bench()
        self._handle = authorizations(provider, Output(TOPIC, codec.encoder(TOPIC)), SystemClock())

    async def ask(self, request: ProviderRequest) -> Message:
        """The one record that a request leads to."""
        record = self._bench.record("provider.requests", b"pay_1", request)
        [sent] = await self._bench.effect_async(self._handle, record)
        assert sent.key == b"pay_1"
        return self._codec.decode(TOPIC, sent.value)

    async def until_decided(self, token: str, attempts_max: int = 5) -> list[Message]:
        """Everything that became known of an authorisation."""
        told: list[Message] = []
        in_doubt = False
        for attempt in range(1, attempts_max + 1):
            sends = told[-1].fields["sends"] if told else 0
            told.append(await self.ask(request(AuthorizeRequest, token, attempt, in_doubt, sends)))
            if told[-1].name != "AttemptFailed":
                break
            in_doubt = in_doubt or not told[-1].fields["outcome_known"]
        return told


def request(
    kind: type[ProviderRequest], token: str = "", attempt: int = 1, query_first: bool = False, sends: int | None = None
) -> Any:
    fields: dict[str, Any] = {
        "id": f"txn_1:{attempt}:0",
        "occurred_at": SystemClock().now_us(),
        "actor": Actor(identity="payment-worker", role="service"),
        "request_id": "req_1",
        "traceparent": "00-11111111111111111111111111111111-2222222222222222-01",
        "reply_to": ReplyTo(partition=2, correlation_id="c_1"),
        "payment_id": "pay_1",
        "merchant_id": "mer_1",
        "transaction_id": "txn_1",
        "attempt": attempt,
        "query_first": query_first,
        "sends": sends,
    }
    if kind is AuthorizeRequest:
        return AuthorizeRequest(amount=2500, currency="USD", payment_method_token=token, **fields)
    if kind is VoidRequest:
        return VoidRequest(authorization_id="txn_1", **{**fields, "transaction_id": "txn_2"})
    return RefundRequest(amount=500, currency="USD", **{**fields, "transaction_id": "txn_3"})


@pytest.fixture
def agent(provider: SimulatorProvider, codec: Codec) -> Gateway:
    return Gateway(provider, codec)


async def charges(gateway: aiohttp.ClientSession) -> int:
    async with gateway.get("/v1/ledger") as response:
        return len((await response.json())["data"])


async def requests_seen(gateway: aiohttp.ClientSession) -> int:
    async with gateway.get("/v1/operations", params={"idempotency_key": "txn_1"}) as response:
        return int((await response.json())["requests"])


@pytest.mark.parametrize(
    ("token", "failed", "succeeded"),
    [
        ("pm_card_visa", [], True),
        ("pm_card_declined", [], False),
        ("pm_provider_error_twice", [False, False], True),
        ("pm_provider_rate_limited_twice", [True, True], True),
        ("pm_provider_timeout", [False], True),
        ("pm_provider_reset_after_charge", [False], True),
    ],
)
async def test_each_token_is_decided_and_charges_at_most_once(
    agent: Gateway, gateway: aiohttp.ClientSession, token: str, failed: list[bool], succeeded: bool
) -> None:
    *attempts, outcome = await agent.until_decided(token)
    assert [(told.name, told.fields["outcome_known"]) for told in attempts] == [("AttemptFailed", k) for k in failed]
    assert (outcome.name, outcome.fields["succeeded"]) == ("AuthorizationOutcome", succeeded)
    assert outcome.fields["attempts"] == await requests_seen(gateway)  # sends, not status queries
    assert await charges(gateway) == int(succeeded)


@pytest.mark.parametrize(("token", "sends"), [("pm_provider_timeout_uncharged", 3), ("pm_provider_down", 3)])
async def test_what_is_never_processed_is_never_charged_and_can_be_voided_for_good(
    agent: Gateway, gateway: aiohttp.ClientSession, token: str, sends: int
) -> None:
    told = await agent.until_decided(token, attempts_max=sends)
    assert {message.name for message in told} == {"AttemptFailed"}
    assert told[-1].fields["error"]["code"] == "provider_unavailable"
    assert (await agent.ask(request(VoidRequest))).fields["succeeded"]
    late = await agent.ask(request(AuthorizeRequest, token, sends, True))
    assert (late.name, late.fields["succeeded"]) == ("AuthorizationOutcome", False)
    assert await requests_seen(gateway) == sends
    assert await charges(gateway) == 0


async def test_in_doubt_the_provider_is_asked_and_not_told_again(
    agent: Gateway, gateway: aiohttp.ClientSession
) -> None:
    await agent.ask(request(AuthorizeRequest, "pm_card_visa"))
    again = await agent.ask(request(AuthorizeRequest, "pm_card_visa", 2, True))
    assert (again.name, again.fields["succeeded"], again.fields["attempts"]) == ("AuthorizationOutcome", True, 1)
    assert await requests_seen(gateway) == 1


async def test_an_outcome_carries_who_waits_for_it_and_an_id_of_its_request(agent: Gateway) -> None:
    first = await agent.ask(request(AuthorizeRequest, "pm_card_visa"))
    again = await agent.ask(request(AuthorizeRequest, "pm_card_visa"))  # as after a crash
    assert first.fields["id"] == again.fields["id"]
    assert first.fields["reply_to"] == {"partition": 2, "correlation_id": "c_1"}
    assert first.fields["traceparent"] == "00-11111111111111111111111111111111-2222222222222222-01"
    assert first.fields["actor"] == {"identity": "provider-gateway", "role": "service"}
    assert (first.fields["request_id"], first.fields["transaction_id"]) == ("req_1", "txn_1")


async def test_rate_limits_are_passed_on(agent: Gateway) -> None:
    told = await agent.ask(request(AuthorizeRequest, "pm_provider_rate_limited_twice"))
    assert (told.fields["operation"], told.fields["attempt"]) == ("AUTHORIZATION", 1)
    assert told.fields["retry_after_ms"] == 1_000


async def test_a_refused_refund_is_an_outcome(agent: Gateway) -> None:
    told = await agent.ask(request(RefundRequest))
    assert (told.name, told.fields["succeeded"]) == ("RefundOutcome", False)
    assert told.fields["error"]["code"] == "refund_refused"


async def test_a_record_of_a_later_release_is_passed_over(provider: SimulatorProvider, codec: Codec) -> None:
    bench = Bench()
    handle = authorizations(provider, Output(TOPIC, codec.encoder(TOPIC)), SystemClock())
    record = bench.record("provider.requests", b"pay_1", None)
    assert await bench.effect_async(handle, record) == []
