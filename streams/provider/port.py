"""The provider as the platform sees it: operations under idempotency keys, which are sent, and asked about.

Operations and results are values. A result says what is *known*: the operation was done, was refused, was surely not
processed, or may or may not have been. Nothing a provider does raises; only a bug of ours does.
"""

from __future__ import annotations

from typing import Literal, Protocol

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
    """Surely not processed: sending again is safe. `retry_after_ms` as the provider asked for.

    `cause`: it is away, it limits our rate, it refused to look at the request, or we did not even send it.
    """

    error: ProviderError
    retry_after_ms: int | None = None
    cause: Literal["unavailable", "limited", "rejected", "not_sent"] = "unavailable"


class Unknown(Value, frozen=True, kw_only=True, gc=False):
    """Sent, and not answered in a way that tells: ask by the key before anything else.

    Of a query: it could not be asked (`retry_after_ms`: when to ask again), or is still at it.
    """

    error: ProviderError
    retry_after_ms: int | None = None


class NotFound(Value, frozen=True, kw_only=True, gc=False):
    """A query's answer: nothing was processed under this key, or a send would find it done; so it may be sent."""


class Authorize(Value, frozen=True, kw_only=True, gc=False):
    """Hold `amount` (minor units) on the card behind the token. Every operation: `key` is its idempotency key."""

    key: str
    payment_id: str
    amount: int
    currency: str
    payment_method_token: str


class Void(Value, frozen=True, kw_only=True, gc=False):
    """Release a hold; an authorisation that the provider has never seen is refused should it still arrive.

    `reference`: the provider's id of the authorisation, None when it never told. `amount` and `currency` are the
    authorisation's, None in requests of older releases.
    """

    key: str
    payment_id: str
    authorization_key: str
    amount: int | None = None
    currency: str | None = None
    reference: str | None = None


class Refund(Value, frozen=True, kw_only=True, gc=False):
    """Give back `amount` (minor units) of what was captured. `reference`: the provider's id of the authorisation."""

    key: str
    payment_id: str
    amount: int
    currency: str
    reference: str | None = None


class SettlementItem(Value, frozen=True, kw_only=True, gc=False):
    """One authorised payment to capture. `amount` in minor units; `reference`: the provider's id of the authorisation.

    `key` is its SETTLEMENT transaction, for providers that capture payments one by one.
    """

    key: str
    payment_id: str
    amount: int
    currency: str
    reference: str | None = None


class Settle(Value, frozen=True, kw_only=True, gc=False):
    """Capture the payments of a chunk; Succeeded has a result for each."""

    key: str
    batch_id: str
    chunk: int
    items: tuple[SettlementItem, ...]


Operation = Authorize | Void | Refund | Settle
"""What moves money, or keeps it from moving."""


Answer = Succeeded | Refused | NotProcessed | Unknown
"""Of a call that moves money."""

QueryAnswer = Succeeded | Refused | NotFound | Unknown
"""Of a status query; Unknown when the provider could not be asked, or is still at it."""


class Provider(Protocol):
    """An acquirer. The same key with the same operation is done at most once, however often it is sent."""

    async def send(self, operation: Operation) -> Answer:
        """Have the operation done."""
        ...

    async def query(self, operation: Operation) -> QueryAnswer:
        """What became of earlier sends of this operation."""
        ...


class ProviderComponent(Provider, Protocol):
    """A provider as a component of its service: `start` before the first call, `stop` after the last."""

    async def start(self) -> None:
        """Open the connections."""
        ...

    async def stop(self) -> None:
        """Close them."""
        ...

    async def check(self) -> None:
        """For readiness: raises ConnectionError unless the provider answers at all."""
        ...
