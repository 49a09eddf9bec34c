"""API keys of merchants, on the internal port. A key is shown once; what is kept is its keyed hash."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from msgspec import UNSET, structs

from api.api_key_texts import key_hashes, new_key_text
from api.audit import Auditor
from api.calls import Call
from api.documents import ApiKeyDocument, ListDocument
from api.lists import ListQuery
from api.models import CreateApiKey, RollApiKey
from api.problems import Problem, not_found
from api.routes import OPERATORS, READERS, Route
from ops.runtime.clock import Clock, from_rfc3339, to_rfc3339
from ops.runtime.secrets import SecretKeys
from streams.domain import ids
from tables.records.merchants import ApiKey, MerchantRecords

_NEVER = 2**62
_KEYS = "/merchants/{merchant_id}/api_keys"


class ApiKeys:
    """The handlers of /merchants/{merchant_id}/api_keys."""

    def __init__(self, records: MerchantRecords, pepper: SecretKeys, mode: str, auditor: Auditor, clock: Clock) -> None:
        self._records = records
        self._pepper = pepper
        self._mode = mode
        self._auditor = auditor
        self._clock = clock

    def routes(self) -> list[Route]:
        """The internal routes of API keys."""
        missing = frozenset({"not_found", "unavailable"})
        return [
            Route(
                method="POST",
                path=_KEYS,
                handler=self.create,
                summary="Make an API key; it is shown this once",
                access=OPERATORS,
                body=CreateApiKey,
                answers={201: ApiKeyDocument},
                problems=missing,
            ),
            Route(
                method="GET",
                path=_KEYS,
                handler=self.list_page,
                summary="A merchant's keys that have not ended",
                access=READERS,
                query={"limit": "1 to 100, default 10", "starting_after": "the last key_id of the page before"},
                answers={200: ListDocument},
                problems=missing,
            ),
            Route(
                method="DELETE",
                path=f"{_KEYS}/{{key_id}}",
                handler=self.revoke,
                summary="Revoke a key",
                access=OPERATORS,
                answers={204: None},
                problems=missing,
            ),
            Route(
                method="POST",
                path=f"{_KEYS}/{{key_id}}/roll",
                handler=self.roll,
                summary="Replace a key; the old one ends after its grace",
                access=OPERATORS,
                body=RollApiKey,
                body_optional=True,
                answers={201: ApiKeyDocument},
                problems=missing,
            ),
        ]

    async def create(self, call: Call) -> web.Response:
        """Makes a key. Restricted ones need scopes, the others have none."""
        request: CreateApiKey = call.body
        merchant_id = call.path("merchant_id")
        scopes = [] if request.scopes is UNSET else list(dict.fromkeys(request.scopes))
        if (request.kind == "restricted") != bool(scopes):
            raise Problem("invalid_request", "restricted keys, and only they, have scopes", param="scopes")
        expires_at = None if request.expires_at is UNSET else self._expiry(request.expires_at)
        if await self._records.merchant(merchant_id) is None:
            raise not_found()
        return await self._make(call, merchant_id, request.kind, scopes, expires_at)

    async def list_page(self, call: Call) -> web.Response:
        page = ListQuery.of(call.query)
        merchant_id = call.path("merchant_id")
        if await self._records.merchant(merchant_id) is None:
            raise not_found()
        now = self._clock.now_us()
        live = [_document(key) for key in await self._records.keys(merchant_id) if key.valid_at(now)]
        return call.answer(200, page.cut(live, lambda document: document.key_id))

    async def revoke(self, call: Call) -> web.Response:
        """Ends a key now; every API instance refuses it within 5 s. Revoking again is a 404: it is gone."""
        key = await self._live(call)
        await self._records.end_key(key, expires_at=key.expires_at, revoked_at=self._clock.now_us())
        await self._auditor.record(
            call, "api_key.revoked", key.key_id, merchant_id=key.merchant_id, before=_document(key)
        )
        return call.empty()

    async def roll(self, call: Call) -> web.Response:
        """A new key of the same kind, scopes and expiry; the old one lives on for the grace that was asked for."""
        request: RollApiKey = call.body
        old = await self._live(call)
        answer = await self._make(call, old.merchant_id, old.kind, old.scopes, old.expires_at)
        now = self._clock.now_us()
        ends = min(now + request.grace_seconds * 1_000_000, old.expires_at or _NEVER)
        if request.grace_seconds == 0:
            await self._records.end_key(old, expires_at=old.expires_at, revoked_at=now)
        else:
            await self._records.end_key(old, expires_at=ends, revoked_at=None)
        before, after = _document(old), structs.replace(_document(old), expires_at=to_rfc3339(ends))
        await self._auditor.record(
            call, "api_key.rolled", old.key_id, merchant_id=old.merchant_id, before=before, after=after
        )
        return answer

    async def _make(
        self, call: Call, merchant_id: str, kind: str, scopes: Sequence[str], expires_at: int | None
    ) -> web.Response:
        key_id = ids.unkeyed(ids.API_KEY)
        text = new_key_text(kind, self._mode, key_id)
        key = ApiKey(
            key_hash=key_hashes(text, self._pepper)[0],
            key_id=key_id,
            merchant_id=merchant_id,
            kind=kind,
            scopes=list(scopes),
            created_at=self._clock.now_us(),
            expires_at=expires_at,
        )
        created = await self._records.create_key(key)
        assert created, "a fresh id and a fresh key are free"
        await self._auditor.record(call, "api_key.created", key_id, merchant_id=merchant_id, after=_document(key))
        return call.answer(201, _document(key, text))

    async def _live(self, call: Call) -> ApiKey:
        key = await self._records.key(call.path("merchant_id"), call.path("key_id"))
        if key is None or not key.valid_at(self._clock.now_us()):
            raise not_found()
        return key

    def _expiry(self, text: str) -> int:
        try:
            expires_at = from_rfc3339(text)
        except (ValueError, OverflowError):
            expires_at = 0
        if expires_at <= self._clock.now_us():
            raise Problem("invalid_request", "a time to come, as in RFC 3339", param="expires_at")
        return expires_at


def _document(key: ApiKey, text: str | None = None) -> ApiKeyDocument:
    return ApiKeyDocument(
        key_id=key.key_id,
        kind=key.kind,
        key=UNSET if text is None else text,
        scopes=list(key.scopes),
        expires_at=None if key.expires_at is None else to_rfc3339(key.expires_at),
    )
