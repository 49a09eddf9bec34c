"""The secrets a new stack needs, as files that only their owner may read: random keys, each with an id for rotation."""

from __future__ import annotations

import base64
import os

import msgspec

from ops.local.layout import Home, write_atomically

KEY_FILES = ("master.key", "pepper.key", "fingerprint.keys", "client-secret.keys")
KEY_BYTES = 32


def ensure_key_files(home: Home) -> None:
    """Make what is missing. An existing file is never replaced: what it protects would be lost with it.

    Content: `{"keys": [{"id": "k1", "key": <base64 of 32 bytes>}]}`; the last is in use, the others still read.
    """
    home.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in KEY_FILES:
        path = home.path("secrets", name)
        if not path.exists():
            key = base64.b64encode(os.urandom(KEY_BYTES)).decode()
            write_atomically(path, msgspec.json.encode({"keys": [{"id": "k1", "key": key}]}))
