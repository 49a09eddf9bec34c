"""API keys as texts: `sk_test_<key id>_<secret>`, and the keyed hash under which they are stored."""

from __future__ import annotations

import base64
import hmac
import os
import re

from ops.runtime.secrets import SecretKeys

PREFIXES = {"secret": "sk", "publishable": "pk", "restricted": "rk"}
_SECRET_BYTES = 32
_SYNTAX = re.compile(r"[spr]k_(?:test|live)_[a-z2-7]{26}_[a-z2-7]{52}")


def new_key_text(kind: str, mode: str, key_id: str) -> str:
    """A fresh key. It is shown once; only its hash is kept."""
    secret = base64.b32encode(os.urandom(_SECRET_BYTES)).decode().rstrip("=").lower()
    return f"{PREFIXES[kind]}_{mode}_{key_id.removeprefix('key_')}_{secret}"


def is_key_text(text: str) -> bool:
    """Whether `text` has the form of a key, of any kind."""
    return _SYNTAX.fullmatch(text) is not None


def key_hashes(text: str, pepper: SecretKeys) -> list[bytes]:
    """The hashes under which the key may be stored, current pepper first."""
    return [hmac.digest(key.key, text.encode(), "sha256") for key in pepper.all]
