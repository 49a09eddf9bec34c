"""A payment as its merchant and the customer's browser see it over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.api.platform_in_memory import OTHER_MERCHANT, Platform


async def test_create_answers_201_with_the_documented_body_and_the_get_right_after_shows_the_same(
    platform: Platform,
) -> None:
    created = await platform.create()
    payment = created.json
    assert created.status == 201
    assert created.headers["Location"] == f"/payments/{payment['payment_id']}"
    assert "Idempotency-Replayed" not in created.headers
    assert list(payment) == DOCUMENTED
    assert payment["client_secret"].startswith(f"{payment['payment_id']}_secret_")
    assert payment | {"client_secret": 0, "payment_id": 0, "created_at": 0, "updated_at": 0} == {
        "payment_id": 0,
        "object": "payment",
        "status": "PENDING",
        "amount": 2500,
        "amount_refunded": 0,
        "currency": "USD",
        "customer": {"email": "ann@example.com", "name": "Ann"},
        "description": "order 17",
        "metadata": {"order": "17"},
        "payment_method_token": None,
        "client_secret": 0,
        "batch_id": None,
        "settlement_date": None,
        "version": 1,
        "created_at": 0,
        "updated_at": 0,
        "failure": None,
        "transactions": [],
    }
    shown = await platform.call("GET", created.headers["Location"])
    assert (shown.status, shown.content) == (200, created.content)


async def test_nothing_personal_is_in_the_command_that_goes_to_kafka(platform: Platform) -> None:
    created = await platform.create("k")
    sent = repr(platform.log.published)
    assert "ann@example.com" not in sent
    assert "order 17" not in sent
    assert created.json["client_secret"].split("_")[-1] not in sent


async def test_a_replay_gives_the_acceptance_again_byte_for_byte_whatever_the_payment_has_become(
    platform: Platform,
) -> None:
    created = await platform.create("k")
    payment_id = created.json["payment_id"]
    confirmed = await platform.confirm(payment_id)
    platform.authorize(payment_id)
    for first, again in ((created, await platform.create("k")), (confirmed, await platform.confirm(payment_id))):
        assert (again.status, again.content) == (first.status, first.content)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert "Idempotency-Replayed" not in first.headers
    assert len(platform.records.rows) == 1


async def test_another_body_under_the_same_key_is_422_and_has_no_effect(platform: Platform) -> None:
    created = await platform.create("k")
    reused = await platform.create("k", amount=2501)
    assert (reused.status, reused.code) == (422, "idempotency_key_reused")
    assert (await platform.call("GET", created.headers["Location"])).json["amount"] == 2500


async def test_one_key_of_two_merchants_makes_two_payments(platform: Platform) -> None:
    mine = await platform.create("k")
    theirs = await platform.call("POST", "/payments", {**PAYMENT_BODY}, key=platform.other_key, idempotency_key="k")
    assert theirs.status == 201
    assert mine.json["payment_id"] != theirs.json["payment_id"]


async def test_an_undecided_create_is_202_then_404_then_the_201_of_its_replay(platform: Platform) -> None:
    platform.log.silent = True
    accepted = await platform.create("k")
    assert accepted.status == 202
    assert accepted.json == {"payment_id": accepted.json["payment_id"], "object": "payment", "status": "PENDING"}
    assert accepted.headers["Retry-After"] == "1"
    assert (await platform.call("GET", accepted.headers["Location"])).status == 404
    platform.log.silent = False
    recorded = await platform.create("k")
    assert recorded.status == 201
    assert recorded.headers["Location"] == accepted.headers["Location"]


async def test_an_undecided_confirm_is_503_and_its_repeat_the_202(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    platform.log.silent = True
    unknown = await platform.confirm(payment_id)
    assert (unknown.status, unknown.code, unknown.headers["Retry-After"]) == (503, "unavailable", "1")
    platform.log.silent = False
    assert (await platform.confirm(payment_id)).status == 202


@pytest.mark.parametrize("reports", [True, False], ids=["the producer gave up", "the producer still tries"])
async def test_without_kafka_nothing_is_accepted(platform: Platform, reports: bool) -> None:
    platform.log.away = True
    platform.log.reports = reports
    refused = await platform.create()
    assert (refused.status, refused.code) == (503, "unavailable")
    platform.log.away = False
    platform.board.is_listening = False
    assert (await platform.create()).status == 503
    assert platform.log.published == []
    assert len(platform.board.backlog) == 0


async def test_confirm_is_202_processing_with_its_authorization_pending(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    confirmed = await platform.confirm(payment_id)
    assert (confirmed.status, confirmed.json["status"]) == (202, "PROCESSING")
    (transaction,) = confirmed.json["transactions"]
    assert (transaction["type"], transaction["status"], transaction["idempotency_key"]) == (
        "AUTHORIZATION",
        "PENDING",
        "c1",
    )
    assert "client_secret" not in confirmed.json


async def test_prefer_wait_gives_the_outcome_as_soon_as_it_is_recorded(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    platform.log.arrived.clear()
    waiting = asyncio.create_task(platform.confirm(payment_id, headers={"Prefer": "wait=5"}))
    await platform.log.arrived.wait()
    reply_to = platform.log.published[-1].reply_to
    assert reply_to is not None
    platform.authorize(payment_id, reply_to.correlation_id)
    outcome = await waiting
    assert (outcome.status, outcome.json["status"]) == (200, "AUTHORIZED")
    assert outcome.headers["Preference-Applied"] == "wait=5"
    replayed = await platform.confirm(payment_id, headers={"Prefer": "wait=5"})
    assert (replayed.status, replayed.json["status"]) == (200, "AUTHORIZED")
    assert replayed.headers["Idempotency-Replayed"] == "true"


async def test_prefer_wait_ends_with_202_when_the_time_is_up_and_is_ignored_when_malformed(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    late = await platform.confirm(payment_id, headers={"Prefer": "respond-async, wait=1"})
    assert (late.status, late.json["status"], late.headers["Preference-Applied"]) == (202, "PROCESSING", "wait=1")
    ignored = await platform.confirm(payment_id, headers={"Prefer": "wait=soon"})
    assert ignored.status == 202
    assert "Preference-Applied" not in ignored.headers


async def test_a_browser_confirms_and_watches_with_the_client_secret_and_sees_nothing_personal(
    platform: Platform,
) -> None:
    created = (await platform.create()).json
    payment_id, secret = created["payment_id"], created["client_secret"]
    browser = platform.publishable_key
    confirmed = await platform.confirm(payment_id, key=browser, body={"client_secret": secret})
    shown = await platform.call("GET", f"/payments/{payment_id}", key=browser, headers={"Client-Secret": secret})
    for answer, status in ((confirmed, 202), (shown, 200)):
        assert answer.status == status
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert not {"customer", "metadata", "client_secret"} & set(answer.json)


async def test_a_browser_without_the_secret_is_403_and_with_another_merchants_payment_404(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    other = (await platform.call("POST", "/payments", {**PAYMENT_BODY}, key=platform.other_key)).json
    browser = platform.publishable_key
    wrong = other["client_secret"]
    for answer in (
        await platform.confirm(payment_id, key=browser),
        await platform.confirm(payment_id, key=browser, body={"client_secret": wrong}),
        await platform.call("GET", f"/payments/{payment_id}", key=browser),
        await platform.call("GET", f"/payments/{payment_id}", key=browser, headers={"Client-Secret": wrong}),
    ):
        assert (answer.status, answer.code) == (403, "forbidden")
    foreign = await platform.confirm(other["payment_id"], key=browser, body={"client_secret": wrong})
    unseen = await platform.confirm(other["payment_id"], key=browser)
    assert (foreign.status, unseen.status) == (404, 404)


async def test_another_merchants_payment_is_the_same_404_as_one_that_does_not_exist(platform: Platform) -> None:
    assert OTHER_MERCHANT in platform.records.merchants
    other = (await platform.call("POST", "/payments", {**PAYMENT_BODY}, key=platform.other_key)).json["payment_id"]
    missing = "pay_" + "a" * 26
    for path, method, body in (("", "GET", None), ("/confirm", "POST", {"payment_method_token": "pm_card_visa"})):
        answers = [
            await platform.call(method, f"/payments/{payment_id}{path}", body, idempotency_key="x")
            for payment_id in (other, missing, "nonsense")
        ]
        assert [answer.status for answer in answers] == [404, 404, 404]
        bodies = [answer.json | {"request_id": ""} for answer in answers]
        assert bodies[0] == bodies[1] == bodies[2]


async def test_a_second_confirm_under_another_key_is_409_with_the_status_and_is_kept(platform: Platform) -> None:
    payment_id = (await platform.create()).json["payment_id"]
    await platform.confirm(payment_id, "c1")
    refused = await platform.confirm(payment_id, "c2")
    assert (refused.status, refused.code, refused.json["payment_status"]) == (409, "invalid_state", "PROCESSING")
    platform.authorize(payment_id)
    kept = await platform.confirm(payment_id, "c2")
    assert kept.json | {"request_id": ""} == refused.json | {"request_id": ""}
    assert kept.headers["Idempotency-Replayed"] == "true"


async def test_cancel_of_a_pending_payment_is_200_and_of_an_authorized_one_202(platform: Platform) -> None:
    pending = (await platform.create()).json["payment_id"]
    canceled = await platform.call("POST", f"/payments/{pending}/cancel", idempotency_key="x")
    assert (canceled.status, canceled.json["status"]) == (200, "CANCELED")
    authorized = (await platform.create()).json["payment_id"]
    await platform.confirm(authorized)
    platform.authorize(authorized)
    voiding = await platform.call("POST", f"/payments/{authorized}/cancel", {}, idempotency_key="x")
    assert (voiding.status, voiding.json["status"]) == (202, "AUTHORIZED")
    assert voiding.json["transactions"][-1]["type"] == "VOID"


async def test_history_as_of_and_events_show_what_was(platform: Platform) -> None:
    created = (await platform.create()).json
    path = f"/payments/{created['payment_id']}"
    await platform.confirm(created["payment_id"])
    platform.authorize(created["payment_id"])
    events = (await platform.call("GET", f"{path}/events")).json["data"]
    assert [(event["type"], event["version"]) for event in events] == [
        ("payment.created", 1),
        ("payment.processing", 2),
        ("payment.authorized", 3),
    ]
    assert (await platform.call("GET", f"{path}?as_of=1")).json == created
    assert (await platform.call("GET", f"{path}?as_of={events[1]['occurred_at']}")).json["status"] == "PROCESSING"
    assert (await platform.call("GET", f"{path}?as_of=0")).status == 404
    assert (await platform.call("GET", f"{path}?as_of=yesterday")).code == "invalid_request"


async def test_lists_page_through_every_payment_once_newest_first(platform: Platform) -> None:
    made = [(await platform.create()).json["payment_id"] for _ in range(5)]
    seen: list[str] = []
    query = "limit=2"
    while True:
        page = (await platform.call("GET", f"/payments?{query}")).json
        seen += [payment["payment_id"] for payment in page["data"]]
        if not page["has_more"]:
            break
        query = f"limit=2&starting_after={seen[-1]}"
    assert seen == made[::-1]
    for bad in ("limit=0", "limit=101", "limit=x", "starting_after=pay_x", "status=NO", "unknown=1", "limit=1&limit=2"):
        refused = await platform.call("GET", f"/payments?{bad}")
        assert (refused.status, refused.code) == (400, "invalid_request"), bad


async def test_an_idempotency_key_tells_what_it_made(platform: Platform) -> None:
    payment_id = (await platform.create("order/17")).json["payment_id"]
    told = await platform.call("GET", "/idempotency_keys/order%2F17")
    assert told.json["payment_id"] == payment_id
    assert (told.json["operation"], told.json["status_code"]) == ("create", 201)
    assert (await platform.call("GET", "/idempotency_keys/other")).status == 404


DOCUMENTED = [
    *("payment_id", "object", "status", "amount", "amount_refunded", "currency", "customer", "description"),
    *("metadata", "payment_method_token", "client_secret", "batch_id", "settlement_date", "version"),
    *("created_at", "updated_at", "failure", "transactions"),
]
PAYMENT_BODY = {"amount": 1, "currency": "JPY", "customer": {"id": "c"}}
