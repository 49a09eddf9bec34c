"""What a payment costs: CPU seconds of every process per 1,000 payments that are created, confirmed, authorised,
recorded and notified by webhook (steps 1 to 7), at a steady rate, beyond what the idle stack costs."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass

import msgspec

from ops.bench.rest import processes_of, rest, spent_s
from ops.demo.client import Client, GaveUp
from ops.demo.platform import Platform
from ops.demo.receiver import Delivery, Receiver
from ops.local.errors import StackError
from ops.local.layout import Home

WEBHOOKS = 3  # of each payment: created, processing, authorized
WARM_UP_S = 5.0
DELIVERED_WITHIN_S = 60.0
TOKEN = "pm_card_visa"  # noqa: S105 - the provider simulator's, always approved


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One process; seconds of CPU per 1,000 payments."""

    name: str
    instance: int
    cpu_s: float


class LifeCost(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run."""

    payments: int
    rate: float  # payments per second
    seconds: float  # from the first request to the last webhook
    webhooks: int
    ours_cpu_s: float  # per 1,000 payments, Python services
    servers_cpu_s: float  # per 1,000 payments: Kafka, Cassandra, registry
    processes: list[Cost]


@dataclass
class _Shop:
    """A merchant whose customers pay at once."""

    platform: Platform
    client: Client

    async def pay(self) -> str:
        """One payment up to AUTHORIZED; its id."""
        run = uuid.uuid4().hex
        order = {"amount": 2500, "currency": "USD", "customer": {"email": "bench@example.com", "name": "Ann Example"}}
        created = await self._call("/payments", self.platform.secret_key, run, order)
        payment_id = str(created["payment_id"])
        confirmation = {"payment_method_token": TOKEN, "client_secret": created["client_secret"]}
        confirmed = await self._call(
            f"/payments/{payment_id}/confirm", self.platform.publishable_key, f"c-{run}", confirmation, Prefer="wait=20"
        )
        assert confirmed["status"] == "AUTHORIZED", confirmed
        return payment_id

    async def _call(self, path: str, key: str, idempotency_key: str, body: object, **headers: str) -> dict[str, object]:
        answer = await self.client.call(
            "POST",
            f"{self.platform.urls['api']}{path}",
            tls=self.platform.public,
            key=key,
            headers={"Idempotency-Key": idempotency_key, **headers},
            body=body,
            wanted={200, 201},
            again={202},
        )
        return dict(answer.document)

    async def listen(self, receiver: Receiver) -> str:
        """Registers the receiver for payments' events; the endpoint's id."""
        url = receiver.new_url()
        answer = await self.client.call(
            "POST",
            f"{self.platform.urls['api']}/webhook_endpoints",
            tls=self.platform.public,
            key=self.platform.secret_key,
            body={"url": url, "event_types": ["payment.*"], "description": "payments bench life"},
            wanted={201},
        )
        receiver.trust(url, answer.document["secret"])
        return str(answer.document["endpoint_id"])

    async def hang_up(self, endpoint_id: str) -> None:
        """Removes the endpoint."""
        await self.client.call(
            "DELETE",
            f"{self.platform.urls['api']}/webhook_endpoints/{endpoint_id}",
            tls=self.platform.public,
            key=self.platform.secret_key,
            wanted={204, 404},
        )


async def measure_life(home: Home, platform: Platform, payments: int, rate: float) -> LifeCost:
    """Pay so often, so many times per second, and wait for the webhooks. Raises TimeoutError, StackError."""
    heard = asyncio.Event()

    def hear(_delivery: Delivery) -> None:
        heard.set()

    client, receiver = Client(), Receiver(hear)
    shop = _Shop(platform, client)
    await receiver.start()
    try:
        endpoint_id = await shop.listen(receiver)
        try:
            await _run(shop, receiver, heard, round(rate * WARM_UP_S), rate)
            processes = processes_of(home)
            idle = await rest(processes)
            before = spent_s(processes)
            began = time.monotonic()
            webhooks = await _run(shop, receiver, heard, payments, rate)
            took_s = time.monotonic() - began
            spent = spent_s(processes)
        finally:
            await shop.hang_up(endpoint_id)
    finally:
        await receiver.stop()
        await client.close()
    costs = [
        Cost(name=name, instance=instance, cpu_s=round((after - b - per_s * took_s) / payments * 1000, 2))
        for (name, instance, _), b, after, per_s in zip(processes, before, spent, idle, strict=True)
    ]
    servers = [cost.cpu_s for cost in costs if cost.name in ("kafka", "cassandra", "schema-registry")]
    return LifeCost(
        payments=payments,
        rate=rate,
        seconds=round(took_s, 1),
        webhooks=webhooks,
        ours_cpu_s=round(sum(cost.cpu_s for cost in costs) - sum(servers), 2),
        servers_cpu_s=round(sum(servers), 2),
        processes=sorted(costs, key=lambda cost: -cost.cpu_s),
    )


async def _run(shop: _Shop, receiver: Receiver, heard: asyncio.Event, payments: int, rate: float) -> int:
    """All payments, on schedule, and all their webhooks; how many came."""
    began = time.monotonic()

    async def due(number: int) -> str:
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        return await shop.pay()

    try:
        paid = await asyncio.gather(*map(due, range(payments)))
    except GaveUp as error:
        raise StackError(str(error), "`payments status` tells whether all services are well.") from error
    async with asyncio.timeout(DELIVERED_WITHIN_S):
        while any(len(receiver.of(payment_id)) < WEBHOOKS for payment_id in paid):
            heard.clear()
            await heard.wait()
    return sum(len(receiver.of(payment_id)) for payment_id in paid)
