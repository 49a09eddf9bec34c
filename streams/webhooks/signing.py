"""Standard Webhooks signatures: HMAC-SHA256 over id, timestamp and body, one for each live secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - a prefix
SECRET_BYTES = 32  # the specification allows 24 to 64


class MalformedSecret(ValueError):  # noqa: N818
    """Not `whsec_` and base64. The text never holds the secret."""


def new_secret() -> str:
    """A fresh endpoint secret, as its merchant is shown it once."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(event_id: str, timestamp_s: int, body: bytes, endpoint_secrets: Sequence[str]) -> dict[str, str]:
    """The three headers. The receiver accepts any one signature, so old and new secrets both work during rotation.

    `timestamp_s`: epoch seconds of this attempt; receivers refuse what is older than five minutes. Raises
    MalformedSecret.
    """
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    signatures = (hmac.digest(_key(secret), signed, hashlib.sha256) for secret in endpoint_secrets)
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise MalformedSecret("an endpoint's secret is not base64") from None
