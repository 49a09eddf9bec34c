"""Encryption of personal data for internal producers, on the admin port: they hold no key, and can decrypt nothing.

A producer whose payments carry personal data asks for the message that goes into the command's `personal_data`; the
rules for the fields are those of POST /payments. Nothing is kept: what was sealed and never published is gone.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from api.bodies import check_media_type, parse_body, read_body
from api.models import SealPersonalData
from api.personal_data import sealed_personal_data
from api.problems import Problem, unavailable
from ops.runtime.admin import AdminRoute
from ops.runtime.encryption import DataKeys, EncryptionError
from ops.runtime.problem import REQUEST_ID_HEADER
from ops.runtime.request_ids import known_request_id, new_request_id
from tables.records.errors import RecordsUnavailable

PATH = "/personal_data"
PRODUCERS = frozenset({"internal-producer"})


def sealing_route(keys: DataKeys) -> AdminRoute:
    """POST /personal_data: 200 with `key_id`, `nonce` and `ciphertext` (the last two in base64), or a problem."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await _answer(keys, request)
        except Problem as problem:
            return problem.response(known_request_id(request.headers.get(REQUEST_ID_HEADER)) or new_request_id())

    return AdminRoute("POST", PATH, handle, PRODUCERS)


async def _answer(keys: DataKeys, request: web.Request) -> web.Response:
    body = await read_body(request)
    check_media_type(request, body)
    wanted = parse_body(body, SealPersonalData)
    try:
        sealed = await sealed_personal_data(keys, wanted.payment_id, wanted)
    except (EncryptionError, RecordsUnavailable):
        raise unavailable("personal data cannot be encrypted now") from None
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=msgspec.json.encode(sealed), content_type="application/json", headers=headers)
