"""Drives orders through the whole life of a payment over HTTP, as a merchant, a browser and an operator do.

Every request carries an idempotency key and is repeated until it is answered, so any one service may die on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from ops.demo.client import PATIENCE_S, Answer, Client, GaveUp
from ops.demo.orders import Order
from ops.demo.platform import Platform
from ops.demo.receiver import Delivery, Receiver
from ops.demo.timeline import Hop
from streams.domain import ids

CONCURRENT = 12  # payments on their way at a time: a steady stream on two cores
WAIT_S = 20  # Prefer: wait, longer than any of the demo's cards takes
RUN_POLL_S = 0.2
SETTLEMENT_DAYS_MAX = 3  # a payment is tried on so many days
ENDPOINT_DESCRIPTION = "payments demo"


class Drive:
    """One run. `on_hop` hears of each hop that the demo sees itself, `on_change` of each order's progress."""

    def __init__(
        self,
        platform: Platform,
        orders: Sequence[Order],
        client: Client,
        on_hop: Callable[[Hop], None],
        on_change: Callable[[], None],
    ) -> None:
        self._platform = platform
        self._orders = orders
        self._client = client
        self._on_hop = on_hop
        self._on_change = on_change
        self._api = platform.urls["api"]
        self._by_payment = {self.expected_id(order): order for order in orders}
        self._invited: set[asyncio.Task[None]] = set()
        self._delivered = asyncio.Event()
        self.receiver = Receiver(self._webhook)
        self.first_settled_at: float | None = None

    def expected_id(self, order: Order) -> str:
        """The id that the payment must get: derived from merchant and key, on every retry the same."""
        return ids.payment_id(self._platform.merchant_id, order.create_key)

    async def run(self) -> None:
        """Everything; what goes wrong with one order is written down there and stops no other."""
        await self.receiver.start()
        try:
            await self._remove_endpoints()
            await self._register_endpoint()
            await self._pay_all()
            await self._settle()
            await self._await_webhooks()
        finally:
            await self._end_webhooks()

    # Steps 1 to 6

    async def _pay_all(self) -> None:
        places = asyncio.Semaphore(CONCURRENT)

        async def one(order: Order) -> None:
            async with places:
                try:
                    await self._pay(order)
                except GaveUp as reason:
                    order.failures.append(str(reason))
                self._on_change()

        await asyncio.gather(*map(one, self._orders))

    async def _pay(self, order: Order) -> None:
        await self._create(order)
        await self.look(order, 1)
        order.token = order.card.name if order.card.number is None else await self._tokenise(order.card.number)
        await self._confirm(order)
        await self.look(order, 3)

    async def _create(self, order: Order) -> None:
        answer = await self._as_merchant(
            "POST",
            "/payments",
            headers={"Idempotency-Key": order.create_key},
            body={
                "amount": order.amount,
                "currency": order.currency,
                "customer": {"email": f"customer-{order.number}@example.com", "name": "Ann Example"},
                "description": f"demo order {order.number}",
                "metadata": {"order": str(order.number), "run": order.run},
            },
            wanted={201},
            again={202},
        )
        payment = answer.document
        order.payment_id, order.client_secret = payment["payment_id"], payment["client_secret"]
        if order.payment_id != self.expected_id(order):
            order.failures.append(f"the id should have been {self.expected_id(order)}")
        self._took_over(order, payment)
        self._hop(4, _http("POST /payments", answer), "payment-api")

    async def _tokenise(self, number: str) -> str:
        next_year = time.gmtime().tm_year + 1
        answer = await self._client.call(
            "POST",
            f"{self._platform.urls['vault']}/v1/tokens",
            tls=self._platform.public,
            key=self._platform.publishable_key,
            body={"card": {"number": number, "exp_month": 12, "exp_year": next_year, "cvc": "123"}},
            wanted={201},
        )
        self._hop(5, _http("POST /v1/tokens", answer), "the card vault")
        return str(answer.document["token"])

    async def _confirm(self, order: Order) -> None:
        """As the browser does it: publishable key and client_secret; waits for the provider's answer."""
        answer = await self._client.call(
            "POST",
            f"{self._api}/payments/{order.payment_id}/confirm",
            tls=self._platform.public,
            key=self._platform.publishable_key,
            headers={"Idempotency-Key": order.confirm_key, "Prefer": f"wait={WAIT_S}"},
            body={"payment_method_token": order.token, "client_secret": order.client_secret},
            wanted={200},
            again={202},
        )
        self._took_over(order, answer.document)
        self._hop(6, _http("POST /payments/{id}/confirm", answer), "payment-api")

    async def look(self, order: Order, version: int) -> None:
        """GET the payment, which must have at least this version: somebody has been told of it."""
        answer = await self._as_merchant("GET", f"/payments/{order.payment_id}", wanted={200})
        payment = answer.document
        if payment["version"] < version:
            order.failures.append(f"GET showed version {payment['version']} after version {version} was announced")
        self._took_over(order, payment)
        self._hop(3, _http("GET /payments/{id}", answer), "payment-api, from Cassandra")

    def _took_over(self, order: Order, payment: dict[str, Any]) -> None:
        order.seen(payment)
        if order.status == "SETTLED" and self.first_settled_at is None:
            self.first_settled_at = time.time()
        self._on_change()

    # Step 7

    async def _register_endpoint(self) -> None:
        """Ask for webhooks, each attempt under a URL of its own: what a lost answer registered is refused with 410."""
        url = ""

        def body() -> dict[str, Any]:
            nonlocal url
            url = self.receiver.new_url()
            types = ["payment.*", "settlement_batch.*"]
            return {"url": url, "event_types": types, "description": ENDPOINT_DESCRIPTION}

        answer = await self._as_merchant("POST", "/webhook_endpoints", body=body, wanted={201})
        self.receiver.trust(url, answer.document["secret"])

    async def _remove_endpoints(self) -> None:
        """Delete this run's endpoint, and those of runs that were killed: nobody listens there any more."""
        listed = await self._as_merchant("GET", "/webhook_endpoints?limit=100", wanted={200})
        for endpoint in listed.document["data"]:
            if endpoint["description"] != ENDPOINT_DESCRIPTION:
                continue
            if self.receiver.owns(endpoint["url"]) or not await _is_listening(endpoint["url"]):
                await self._as_merchant("DELETE", f"/webhook_endpoints/{endpoint['endpoint_id']}", wanted={204, 404})

    async def _as_merchant(self, method: str, path: str, **more: Any) -> Answer:
        """A call to the public API with the merchant's secret key."""
        platform = self._platform
        return await self._client.call(
            method, f"{self._api}{path}", tls=platform.public, key=platform.secret_key, **more
        )

    def _webhook(self, delivery: Delivery) -> None:
        """A webhook invites to a GET, which must already show what it tells."""
        order = self._by_payment.get(delivery.subject)
        if order is None and delivery.type != "settlement_batch.completed":
            return  # another client's payment of the same merchant
        self._hop(7, f"webhook {delivery.type}, signature good", "the merchant's receiver")
        self._delivered.set()
        if order is not None:
            task = asyncio.create_task(self._accept_invitation(order, delivery.sequence))
            self._invited.add(task)
            task.add_done_callback(self._invited.discard)

    async def _accept_invitation(self, order: Order, version: int) -> None:
        order.payment_id = order.payment_id or self.expected_id(order)  # it may come before our answer
        try:
            await self.look(order, version)
        except GaveUp as reason:
            order.failures.append(f"a webhook of version {version} came, but {reason}")

    async def _await_webhooks(self) -> None:
        """Until every order and batch has had all its webhooks, or PATIENCE_S: the verification tells what lacks."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not self._has_all_webhooks():
                    self._delivered.clear()
                    await self._delivered.wait()
                while self._invited:
                    await asyncio.wait(self._invited)
        except TimeoutError:
            return

    def _has_all_webhooks(self) -> bool:
        self._on_change()
        orders = [order for order in self._orders if order.payment_id]
        batches = {order.batch_id for order in orders if order.batch_id}
        return all(len(self.receiver.of(o.payment_id)) >= len(o.card.path) for o in orders) and all(
            map(self.receiver.of, batches)
        )

    async def _end_webhooks(self) -> None:
        try:
            await self._remove_endpoints()
        finally:
            for task in self._invited:
                task.cancel()
            await asyncio.gather(*self._invited, return_exceptions=True)
            await self.receiver.stop()

    # Step 8

    async def _settle(self) -> None:
        """Close the days of all approved orders, and the following for those whose capture is tried again."""
        for _ in range(SETTLEMENT_DAYS_MAX):
            waiting = [order for order in self._orders if order.card.is_approved and order.status == "AUTHORIZED"]
            if not waiting:
                return
            await self._close_day(max(order.settlement_date or "" for order in waiting))
            for order in waiting:
                await self.look(order, 3)

    async def _close_day(self, day: str) -> None:
        """Close a day, today's or a coming one, and every one before it; return when its run is completed."""
        internal, operator = self._platform.urls["internal"], self._platform.operator
        answer = await self._client.call(
            "POST",
            f"{internal}/settlement_batches",
            tls=operator,
            body={"settlement_date": day, "force": True},
            wanted={202, 409},
        )
        if answer.status == 409:  # each demo closes a day, and days can be closed a month ahead
            raise GaveUp(f"{day} is too far ahead to be closed: go on tomorrow, or with another --home")
        self._hop(8, _http(f"POST /settlement_batches {day}", answer), "payment-api, internal port")
        deadline = time.monotonic() + PATIENCE_S
        while answer.document["status"] != "COMPLETED":
            if time.monotonic() > deadline:
                raise GaveUp(f"the settlement run of {day} is {answer.document['status']} after {PATIENCE_S:.0f} s")
            await asyncio.sleep(RUN_POLL_S)
            answer = await self._client.call(
                "GET", f"{internal}/settlement_runs/{day}", tls=operator, wanted={200}, again={404}
            )

    def _hop(self, step: int, what: str, where: str) -> None:
        self._on_hop(Hop(time.time(), step, what, where))


def _http(what: str, answer: Answer) -> str:
    status = answer.document.get("status", "") if isinstance(answer.document, dict) else ""
    return f"{what}: {answer.status} {status} in {answer.took_s * 1000:.0f} ms"


async def _is_listening(url: str) -> bool:
    parts = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    except OSError:
        return False
    writer.close()
    return True
