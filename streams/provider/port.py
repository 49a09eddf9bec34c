"""The provider as the platform sees it: five calls, each with an idempotency key, whose results are values.

A result says what is *known*: the operation was done, was refused, was surely not processed, or may or may not have
been. Nothing a provider does raises; only a bug of ours does.
"""

from __future__ import annotations

from typing import Protocol

from streams.domain.envelope import Value
from streams.domain.payment import ProviderError


class ItemResult(Value, frozen=True, kw_only=True, gc=False):
    """What became of one payment of a settlement chunk: `error` is None when it was captured."""

    payment_id: str
    provider_reference: str | None = None
    error: ProviderError | None = None


class Succeeded(Value, frozen=True, kw_only=True, gc=False):
    """Done. `items` has an entry for each payment of a settlement chunk, and none for other operations."""

    provider_reference: str | None = None
    items: tuple[ItemResult, ...] = ()


class Refused(Value, frozen=True, kw_only=True, gc=False):
    """Decided against, for good: the same key will get the same answer."""

    provider_reference: str | None = None
    error: ProviderError


class NotProcessed(Value, frozen=True, kw_only=True, gc=False):
    """Surely not processed: sending again is safe. `retry_after_ms` as the provider asked for."""

    error: ProviderError
    retry_after_ms: int | None = None


class Unknown(Value, frozen=True, kw_only=True, gc=False):
    """Sent, and not answered in a way that tells: ask by the key before anything else."""

    error: ProviderError


class NotFound(Value, frozen=True, kw_only=True, gc=False):
    """A query's answer: nothing was ever processed under this key, so it may be sent."""


class SettlementItem(Value, frozen=True, kw_only=True, gc=False):
    """One authorised payment to capture. `amount` in minor units."""

    payment_id: str
    amount: int
    currency: str


Answer = Succeeded | Refused | NotProcessed | Unknown
"""Of a call that moves money."""

QueryAnswer = Succeeded | Refused | NotFound | Unknown
"""Of a status query; Unknown when the provider could not be asked, or is still at it."""


class Provider(Protocol):
    """An acquirer. `key` is the idempotency key; the same key with the same arguments is done at most once."""

    async def authorize(
        self, key: str, *, payment_id: str, amount: int, currency: str, payment_method_token: str
    ) -> Answer:
        """Hold `amount` (minor units) on the card behind the token."""
        ...

    async def void(self, key: str, *, payment_id: str, authorization_key: str) -> Answer:
        """Release a hold; an authorisation that the provider has never seen is refused should it still arrive."""
        ...

    async def refund(self, key: str, *, payment_id: str, amount: int, currency: str) -> Answer:
        """Give back `amount` (minor units) of what was captured."""
        ...

    async def settle(self, key: str, *, batch_id: str, chunk: int, items: tuple[SettlementItem, ...]) -> Answer:
        """Capture the payments of a chunk; Succeeded has a result for each."""
        ...

    async def query(self, key: str) -> QueryAnswer:
        """What became of the sends under `key`."""
        ...
