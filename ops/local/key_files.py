"""The secrets a new stack needs, as files that only their owner may read: random keys, each with an id for rotation."""

from __future__ import annotations

import os

from ops.local.layout import Home, write_atomically
from ops.runtime.secrets import KEY_BYTES, new_key_file

KEY_FILES = ("master.key", "pepper.key", "fingerprint.keys", "client-secret.keys")


def ensure_key_files(home: Home) -> None:
    """Make what is missing, in a directory of mode 0700. An existing file is kept: what it protects depends on it."""
    home.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in KEY_FILES:
        path = home.path("secrets", name)
        if not path.exists():
            write_atomically(path, new_key_file("k1", os.urandom(KEY_BYTES)))
