"""What the API needs from the world beyond its own process, as small protocols; `api.server` plugs in the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from streams.domain.commands import CreatePayment, MerchantCommand
from streams.domain.payment import Payment


class PaymentReads(Protocol):
    """Recorded payments (step 3, Record). Methods raise RecordsUnavailable during an outage."""

    async def get(self, payment_id: str) -> Payment | None: ...

    async def at_revision(self, payment_id: str, revision: int) -> Payment | None: ...

    async def at_version(self, payment_id: str, version: int) -> Payment | None: ...

    async def at_time(self, payment_id: str, at: int) -> Payment | None: ...

    async def history(self, payment_id: str) -> Sequence[Any]: ...

    async def list(
        self,
        merchant_id: str,
        *,
        limit: int,
        status: str | None = None,
        created_after: int = 0,
        created_before: int | None = None,
        starting_after: Payment | None = None,
    ) -> Sequence[Payment]: ...


class Delivery:
    """What is known of a command's way into Kafka. Set by the producer's thread, read by the event loop's."""

    def __init__(self) -> None:
        self.is_durable = False  # every in-sync replica has it


ClientCommand = CreatePayment | MerchantCommand


class CommandLog(Protocol):
    """Where commands become durable (step 1, Accept)."""

    def send(self, command: ClientCommand, undelivered: Callable[[], None]) -> Delivery:
        """Sends a command under its payment's id.

        Its delivery is known later, and `undelivered` called on the event loop when it failed.

        Raises Problem `overloaded` when too many wait to be sent.
        """
        ...
