"""What the provider is asked to do, through the outbox topic `provider.requests`."""

from __future__ import annotations

from streams.domain.envelope import Command


class AuthorizeRequest(Command, frozen=True, kw_only=True, gc=False):
    """Hold `amount` (minor units) on the card. The provider's idempotency key is `transaction_id`.

    `query_first`: an earlier attempt may have been processed; only if the provider has never seen it, send it.
    """

    type: str = "authorization.request"
    payment_id: str
    merchant_id: str
    transaction_id: str
    amount: int
    currency: str
    payment_method_token: str
    attempt: int
    query_first: bool


class VoidRequest(Command, frozen=True, kw_only=True, gc=False):
    """Release the hold `authorization_id`, or refuse it should it still arrive."""

    type: str = "void.request"
    payment_id: str
    merchant_id: str
    transaction_id: str
    authorization_id: str
    attempt: int
    query_first: bool


class RefundRequest(Command, frozen=True, kw_only=True, gc=False):
    """Give back `amount` (minor units) of what was captured."""

    type: str = "refund.request"
    payment_id: str
    merchant_id: str
    transaction_id: str
    amount: int
    currency: str
    attempt: int
    query_first: bool


ProviderRequest = AuthorizeRequest | VoidRequest | RefundRequest
