"""`payments reconcile` on the running platform: nothing to say while all is well, and what somebody spoils is named."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator

import pytest
from typer.testing import CliRunner, Result

from ops.cli.reconcile import app
from ops.local.layout import STACK_ADMIN
from ops.local.record_tables import KEYSPACE
from tables.records.session import RecordsSession
from tests.e2e.http_calls import Shop
from tests.local_servers import Servers


def reconcile(stack: Servers, wait_s: int, *payments: str) -> Result:
    arguments = ["--json", "--wait", str(wait_s), *payments]
    return CliRunner().invoke(app, arguments, env={"PAYMENTS_HOME": str(stack.home.root)})


def test_after_authorisations_a_decline_and_a_void_all_witnesses_agree(stack: Servers, shop: Shop) -> None:
    made = []  # tests of other parts leave rows and movements without a payment on the same servers
    for token in ("pm_card_visa", "pm_card_declined", "pm_provider_error_twice"):
        payment = shop.create().body
        made.append(payment["payment_id"])
        assert shop.confirm(payment, token).status in (200, 202)
    payment = shop.create().body
    made.append(payment["payment_id"])
    assert shop.confirm(payment, "pm_card_mastercard", Prefer="wait=10").status == 200
    canceled = shop.call(
        "POST",
        f"{shop.urls['api']}/payments/{payment['payment_id']}/cancel",
        {},
        key=shop.secret_key,
        Idempotency_Key=uuid.uuid4().hex,
    )
    assert canceled.status in (200, 202), canceled

    agreed = reconcile(stack, 60, *made)

    assert agreed.exit_code == 0, agreed.output
    assert agreed.stderr == "4 payments, 0 differences\n"


@pytest.fixture
async def intruder(stack: Servers) -> AsyncIterator[RecordsSession]:
    """Somebody who may write the records."""
    session = await RecordsSession.connect(stack.cassandra_address(STACK_ADMIN), KEYSPACE)
    yield session
    await session.close()


async def test_a_record_that_nobody_decided_is_named(stack: Servers, intruder: RecordsSession) -> None:
    forged = f"pay_{uuid.uuid4().hex[:26]}"
    await intruder.execute(
        "INSERT INTO payments (payment_id, position, status, version, revision, amount, amount_refunded, currency)"
        " VALUES (?, 0, 'SETTLED', 4, 6, 100000, 0, 'USD')",
        (forged,),
    )
    try:
        done = await asyncio.to_thread(reconcile, stack, 2)
    finally:
        await intruder.execute("DELETE FROM payments WHERE payment_id = ?", (forged,))

    assert done.exit_code == 1, done.output
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {
        "payment_id": forged,
        "witness": "payments.events",
        "problem": "nothing of it; who knows it: Cassandra",
    } in told
