"""Envelope encryption of personal data and endpoint secrets: AES-256-GCM under data keys wrapped by the master key.

Each process makes its own data keys, so it alone counts their messages. Nonces are random; a key is renewed after half
a day (so that a day is never exceeded, whatever is away at the time) and long before the 2^31 messages up to which
random 96-bit nonces are safe. The id of what is encrypted (payment, endpoint) is associated data, so that a ciphertext
moved to another row does not decrypt.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections import OrderedDict
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ops.runtime.clock import Clock
from ops.runtime.logs import exception_fields, logger
from ops.runtime.secrets import KEY_BYTES, SecretKeys

NONCE_BYTES = 12
RENEW_AFTER_US = 12 * 3_600 * 1_000_000
EXPIRE_AFTER_US = 24 * 3_600 * 1_000_000
RENEW_RETRY_S = 10.0
MESSAGES_MAX = 2**30
CACHED_KEYS_MAX = 1_024


class EncryptionError(Exception):
    """Base of this module's errors; their texts hold ids only."""


class UnknownDataKey(EncryptionError):  # noqa: N818
    """No data key has this id: it was not made by us, for a key is stored before its first message."""


class UnknownMasterKey(EncryptionError):  # noqa: N818
    """The data key is wrapped by a master key that this process was not given: with it, all would be readable."""


class CannotDecrypt(EncryptionError):  # noqa: N818
    """The ciphertext, its nonce or what it belongs to is not what was encrypted."""


class DataKeyExpired(EncryptionError):  # noqa: N818
    """The current data key is too old and no new one could be stored: nothing may be encrypted for now."""


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """One encrypted message. Field names are those of the Avro record PersonalData."""

    key_id: str
    nonce: bytes
    ciphertext: bytes  # with the 16-byte tag at its end


class DataKeyStore(Protocol):
    """Where wrapped data keys live: rows that are written once. Implemented over Cassandra in `tables.records`."""

    async def put(self, key_id: str, wrapped: bytes, created_at: int) -> None:
        """Stores a new key durably; `created_at` in epoch microseconds."""
        ...

    async def get(self, key_id: str) -> bytes | None:
        """The wrapped key, or None when there is none of this id. Raises when the store cannot be asked."""
        ...


class _DataKey:
    """A key in memory, with what is needed to know when to stop using it."""

    __slots__ = ("cipher", "created_at", "key_id", "messages")

    def __init__(self, key_id: str, key: bytes, created_at: int) -> None:
        self.key_id = key_id
        self.cipher = AESGCM(key)
        self.created_at = created_at
        self.messages = 0


class DataKeys:
    """Encrypts under this process's current data key and decrypts under any."""

    def __init__(self, master: SecretKeys, store: DataKeyStore, clock: Clock) -> None:
        self._master = master
        self._store = store
        self._clock = clock
        self._current: _DataKey | None = None
        self._first = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._cache: OrderedDict[str, AESGCM] = OrderedDict()

    async def encrypt(self, belongs_to: str, plaintext: bytes) -> Sealed:
        """`plaintext` sealed for the object with id `belongs_to`.

        Raises DataKeyExpired (or the store's error, for the very first key) while no new key can be stored.
        """
        key = await self._usable_key()
        key.messages += 1
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = key.cipher.encrypt(nonce, plaintext, belongs_to.encode())
        return Sealed(key_id=key.key_id, nonce=nonce, ciphertext=ciphertext)

    async def decrypt(self, belongs_to: str, sealed: Sealed) -> bytes:
        """The plaintext.

        Raises UnknownDataKey or CannotDecrypt for what can never be read, UnknownMasterKey, or the store's error when
        the key cannot be fetched.
        """
        cipher = self._cache.get(sealed.key_id)
        if cipher is None:
            cipher = await self._fetch(sealed.key_id)
        try:
            return cipher.decrypt(sealed.nonce, sealed.ciphertext, belongs_to.encode())
        except (InvalidTag, ValueError):
            raise CannotDecrypt(f"what {belongs_to} holds was not encrypted for it") from None

    async def prepare(self) -> None:
        """Makes the first key, so that the first request need not wait. Raises the store's error."""
        await self._usable_key()

    async def _usable_key(self) -> _DataKey:
        key = self._current
        if key is None:
            async with self._first:
                if self._current is None:
                    self._current = await self._make()
                return self._current
        if not self._is_fresh(key):
            if self._clock.now_us() - key.created_at >= EXPIRE_AFTER_US or key.messages >= 2 * MESSAGES_MAX:
                raise DataKeyExpired(f"data key {key.key_id} expired")
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew(key), name="renew data key")
        return key

    async def _renew(self, key: _DataKey) -> None:
        """In the background: requests go on under the old key, which has hours left, while the store is away."""
        try:
            self._current = await self._make()
        except Exception as error:
            logger().warning("data key not renewed", key_id=key.key_id, **exception_fields(error))
            await asyncio.sleep(RENEW_RETRY_S)

    def _is_fresh(self, key: _DataKey) -> bool:
        return key.messages < MESSAGES_MAX and self._clock.now_us() - key.created_at < RENEW_AFTER_US

    async def _make(self) -> _DataKey:
        key_id = "dk_" + base64.b32encode(os.urandom(15)).decode().lower()
        raw = os.urandom(KEY_BYTES)
        created_at = self._clock.now_us()
        await self._store.put(key_id, _wrap(self._master, key_id, raw), created_at)
        key = _DataKey(key_id, raw, created_at)
        self._remember(key_id, key.cipher)
        return key

    async def _fetch(self, key_id: str) -> AESGCM:
        wrapped = await self._store.get(key_id)
        if wrapped is None:
            raise UnknownDataKey(f"no data key {key_id}")
        cipher = AESGCM(_unwrap(self._master, key_id, wrapped))
        self._remember(key_id, cipher)
        return cipher

    def _remember(self, key_id: str, cipher: AESGCM) -> None:
        self._cache[key_id] = cipher
        if len(self._cache) > CACHED_KEYS_MAX:
            self._cache.popitem(last=False)


def _wrap(master: SecretKeys, key_id: str, key: bytes) -> bytes:
    """Length and id of the master key, nonce, ciphertext; the data key's id is associated data."""
    label = master.current.id.encode()
    nonce = os.urandom(NONCE_BYTES)
    return bytes([len(label)]) + label + nonce + AESGCM(master.current.key).encrypt(nonce, key, key_id.encode())


def _unwrap(master: SecretKeys, key_id: str, wrapped: bytes) -> bytes:
    end = 1 + wrapped[0]
    label = wrapped[1:end].decode()
    master_key = master.by_id(label)
    if master_key is None:
        raise UnknownMasterKey(f"data key {key_id} is wrapped by a master key that is not here")
    try:
        nonce, ciphertext = wrapped[end : end + NONCE_BYTES], wrapped[end + NONCE_BYTES :]
        return AESGCM(master_key.key).decrypt(nonce, ciphertext, key_id.encode())
    except InvalidTag:
        raise CannotDecrypt(f"data key {key_id} was not wrapped by master key {label}") from None
