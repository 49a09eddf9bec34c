"""Key files: named secret keys with the current one first, so that each can be rotated while the old ones still verify.

A file is JSON: `{"keys": [{"id": "k2", "key": "<base64, 32 bytes>"}, {"id": "k1", "key": "..."}]}`.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import msgspec

KEY_BYTES = 32  # AES-256 and HMAC-SHA256 alike


class SecretKeyError(Exception):
    """A key file is missing or malformed. The message names the file and never holds key material."""


class SecretKey(msgspec.Struct, frozen=True):
    """One key and the id under which its products are labelled."""

    id: str
    key: bytes

    def __repr__(self) -> str:  # a key must not reach a log by accident
        return f"SecretKey(id={self.id!r})"


class SecretKeys:
    """The keys of one file. `current` makes new products; any of them verifies old ones."""

    def __init__(self, keys: list[SecretKey]) -> None:
        assert keys
        self.current = keys[0]
        self.all = tuple(keys)
        self._by_id = {key.id: key for key in keys}

    def by_id(self, key_id: str) -> SecretKey | None:
        return self._by_id.get(key_id)


class _KeyEntry(msgspec.Struct):
    id: str
    key: str


class _KeyFile(msgspec.Struct):
    keys: list[_KeyEntry]


def read_secret_keys(path: Path) -> SecretKeys:
    """The keys in `path`, current first. Raises SecretKeyError."""
    try:
        entries = msgspec.json.decode(path.read_bytes(), type=_KeyFile).keys
        keys = [SecretKey(entry.id, base64.b64decode(entry.key, validate=True)) for entry in entries]
    except OSError as error:
        raise SecretKeyError(f"cannot read the key file {path}: {error.strerror}") from error
    except (msgspec.DecodeError, binascii.Error):
        raise SecretKeyError(f'{path} is not of the form {{"keys": [{{"id", "key"}}]}}') from None
    if not keys or any(len(key.key) != KEY_BYTES or not key.id for key in keys):
        raise SecretKeyError(f"{path} needs at least one key, each with an id and {KEY_BYTES} bytes")
    if len({key.id for key in keys}) != len(keys):
        raise SecretKeyError(f"{path} names one id twice")
    return SecretKeys(keys)


def new_key_file(key_id: str, key: bytes) -> bytes:
    """The content of a file with one key. `key` has 32 bytes."""
    assert len(key) == KEY_BYTES
    return msgspec.json.encode(_KeyFile([_KeyEntry(key_id, base64.b64encode(key).decode())]))
