"""The card vault's HTTP API: a browser trades a card for a token. Its own origin, CORS, no client certificate.

What arrives here is never stored, logged or repeated: a token is kept with the magic token that the card's number
behaves like, and nothing else.
"""

from __future__ import annotations

import base64
import re
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta

import msgspec
from aiohttp import hdrs, web
from stdnum import luhn

from ops.runtime.clock import Clock
from ops.simulator.behaviours import OTHER_CARDS, TEST_CARDS
from ops.simulator.http import Handler, RefusedError, answer_failures, json_response, read_body
from ops.simulator.store import Store

BODY_BYTES_MAX = 4 * 1024  # a card has less than 200 bytes

_BEARER = re.compile(r"Bearer pk_\w+", re.ASCII)
_SEPARATORS = str.maketrans("", "", " -")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A card as a browser sends it."""

    number: str
    exp_month: int
    exp_year: int
    cvc: str

    def __repr__(self) -> str:  # a card must not reach a log by accident
        return "Card()"


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /v1/tokens."""

    card: Card


class Vault:
    """Handlers of the vault's API over the simulator's store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def application(self) -> web.Application:
        """The one route, for every origin."""
        app = web.Application(middlewares=[_allow_every_origin, answer_failures], client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/v1/tokens", self.post_token)
        return app

    async def post_token(self, request: web.Request) -> web.StreamResponse:
        """201 with a token for the card; 400 `invalid_card`; 401 without a publishable key."""
        if not _BEARER.fullmatch(request.headers.get("Authorization", "")):
            raise RefusedError(401, "unauthenticated", "a publishable key is required")
        card = (await read_body(request, TokenRequest)).card
        number = card.number.translate(_SEPARATORS)
        if not self._is_valid(card, number):
            raise RefusedError(400, "invalid_card", "number, expiry or security code is not valid")
        token = f"pm_{base64.b32encode(uuid.uuid4().bytes).decode().rstrip('=').lower()}"
        behaves_like = TEST_CARDS.get(number, OTHER_CARDS)

        def keep(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO tokens (token, behaves_like) VALUES (?, ?)", (token, behaves_like))

        await self._store.transact(keep)
        return json_response(201, {"token": token})

    def _is_valid(self, card: Card, number: str) -> bool:
        today = _EPOCH + timedelta(microseconds=self._clock.now_us())
        return (
            number.isascii()
            and number.isdigit()
            and 13 <= len(number) <= 19
            and bool(luhn.is_valid(number))
            and 1 <= card.exp_month <= 12
            and (today.year, today.month) <= (card.exp_year, card.exp_month) <= (today.year + 50, 12)
            and card.cvc.isascii()
            and card.cvc.isdigit()
            and len(card.cvc) in (3, 4)
        )


@web.middleware
async def _allow_every_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Browsers of any merchant may call; the key in the header says who they are, so no cookie is ever needed."""
    preflight = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    response = web.Response(status=204) if preflight else await handler(request)
    response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    if preflight:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "POST"
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = "Authorization, Content-Type"
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"
    return response
