"""What makes two requests the same: an HMAC of the canonical plain request (a plain hash could be guessed back)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streams.domain.commands import Idempotency
from streams.domain.envelope import Value
from streams.domain.payment import Fingerprint

_CANONICAL = msgspec.json.Encoder(order="sorted")


class FingerprintKey(Value, frozen=True, kw_only=True, gc=False):
    """A secret under which requests are fingerprinted; several live at once while they are rotated."""

    key_id: str
    secret: bytes


def canonical(request: Mapping[str, Any]) -> bytes:
    """The validated fields of a request as bytes that do not depend on their order or on white space."""
    return _CANONICAL.encode(request)


def idempotency(
    merchant_id: str, idempotency_key: str, request: Mapping[str, Any], keys: Sequence[FingerprintKey]
) -> Idempotency:
    """What a command carries of a client's key and request; `keys` are the live ones, the newest first."""
    assert keys, "no fingerprint key is live"
    plain = canonical(request)
    return Idempotency(
        key_hash=hashlib.sha256(f"{merchant_id}/{idempotency_key}".encode()).digest(),
        fingerprints=tuple(
            Fingerprint(key_id=key.key_id, mac=hmac.digest(key.secret, plain, "sha256")) for key in keys
        ),
    )


def is_same(kept: Fingerprint, fingerprints: Sequence[Fingerprint]) -> bool:
    """True unless the request is known to be another one than that of `kept`.

    A fingerprint under a key that is no longer live cannot be compared; the retry gets its answer, never a 422.
    """
    for fingerprint in fingerprints:
        if fingerprint.key_id == kept.key_id:
            return hmac.compare_digest(fingerprint.mac, kept.mac)
    return True
