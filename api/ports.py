"""What the API needs from the world beyond its own process, as small protocols; `api.server` plugs in the real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

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


class CommandLog(Protocol):
    """Where commands become durable (step 1, Accept)."""

    async def publish(self, record: str, key: str, fields: Mapping[str, Any], timeout_s: float) -> None:
        """Returns once every in-sync replica has the command.

        Raises Problem `unavailable` when that is not known within `timeout_s` seconds.
        """
        ...
