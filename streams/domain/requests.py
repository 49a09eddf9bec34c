"""What the provider is asked to do, through the outbox topic `provider.requests`."""

from __future__ import annotations

from streams.domain.envelope import Command


class AuthorizeRequest(Command, frozen=True, kw_only=True, gc=False):
    """Hold `amount` (minor units) on the card. The provider's idempotency key is `transaction_id`.

    `attempt` numbers the rounds (a send, a status query, or both), `sends` counts the sends before this one.
    `query_first`: an earlier attempt may have been processed; only if the provider has never seen it, send it.
    Fields that are None in the others as well: records of older releases do not have them.
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
    sends: int | None = None


class VoidRequest(Command, frozen=True, kw_only=True, gc=False):
    """Release the hold `authorization_id`, or refuse it should it still arrive.

    `amount` and `currency` are the authorisation's, `authorization_reference` its id at the provider, if it is known.
    """

    type: str = "void.request"
    payment_id: str
    merchant_id: str
    transaction_id: str
    authorization_id: str
    attempt: int
    query_first: bool
    sends: int | None = None
    authorization_reference: str | None = None
    amount: int | None = None
    currency: str | None = None


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
    sends: int | None = None
    authorization_reference: str | None = None
    authorization_id: str | None = None


ProviderRequest = AuthorizeRequest | VoidRequest | RefundRequest
