"""The client secret of a payment: what lets a browser confirm it. Computed when needed, never stored, never published.

`pay_..._secret_<key id>_<mac>`, where mac = base32(HMAC-SHA256(key, payment_id)).
"""

from __future__ import annotations

import base64
import hmac

from ops.runtime.secrets import SecretKeys


class ClientSecrets:
    """Makes and checks client secrets under named keys."""

    def __init__(self, keys: SecretKeys) -> None:
        self._keys = keys

    @property
    def current_key_id(self) -> str:
        """The id of the key for new payments."""
        return self._keys.current.id

    def of(self, payment_id: str, key_id: str) -> str | None:
        """The secret of a payment whose key id is `key_id`; None when that key has been withdrawn."""
        key = self._keys.by_id(key_id)
        if key is None:
            return None
        mac = base64.b32encode(hmac.digest(key.key, payment_id.encode(), "sha256")).decode().rstrip("=").lower()
        return f"{payment_id}_secret_{key_id}_{mac}"

    def is_of(self, payment_id: str, secret: str) -> bool:
        """Whether `secret` is the payment's under any live key; compared in constant time."""
        expected = [self.of(payment_id, key.id) or "" for key in self._keys.all]
        given = secret.encode(errors="surrogateescape")  # a header may hold any bytes
        return any([hmac.compare_digest(text.encode(), given) for text in expected])  # noqa: C419 - all, every time
