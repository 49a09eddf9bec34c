"""The one typed settings object, read from `PAYMENTS_*` environment variables at a service's entry point.

Nothing else in the platform reads the environment. Secrets never travel in it: settings hold the paths of files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

PREFIX = "PAYMENTS_"


class SettingsError(ValueError):
    """A variable is missing or malformed; the message names it and says what it should be."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one service needs to know. Variable: `PAYMENTS_` and the field's name in capitals; lists with commas."""

    service: str  # name as in architecture: payment-api, payment-worker, ...
    instance: int = 0  # for payment-api also its partition of payments.replies
    mode: Literal["test", "live"] = "test"  # "live" refuses force-closing days and http endpoints

    tls_ca: Path  # PEM of our certificate authority
    tls_cert: Path  # PEM, leaf first
    tls_key: Path  # PEM, unencrypted PKCS8, mode 0600

    kafka_bootstrap: str  # host:port[,host:port]
    cassandra_contact_points: list[str]
    cassandra_port: int
    cassandra_keyspace: str = "payments"
    cassandra_datacenter: str = "local"
    schema_registry_url: str

    state_dir: Path  # RocksDB of this instance; may be deleted, is rebuilt from the changelogs
    secrets_dir: Path  # master.key, pepper.key, fingerprint.keys, client-secret.keys; directory mode 0700

    provider_kind: Literal["simulator", "stripe"] = "simulator"  # which acquirer provider-gateway talks to
    provider_url: str  # the root of its API; Stripe's is https://api.stripe.com
    provider_secret_file: Path = Path()  # provider_kind stripe: the account's secret key and nothing else, mode 0600
    provider_timeout_s: float = 5.0
    batch_processor_url: str  # admin port of batch-processor, where runs are started

    listen_host: str = "127.0.0.1"
    admin_port: int  # mTLS: /metrics /healthz /readyz
    api_port: int = 0  # payment-api only: public HTTPS
    api_loopback_port: int = 0  # payment-api only; 0: no plain-HTTP listener
    internal_port: int = 0  # payment-api only: operators, mTLS
    provider_port: int = 0  # provider-simulator only
    vault_port: int = 0  # provider-simulator only

    intake_merchants: list[str] = []  # payment-worker: for whom internal producers may create; none: for nobody
    pending_expiry_s: int = 86_400  # PENDING payments expire after this
    reply_timeout_s: float = 2.0  # then 202 (create) or 503 (others)
    log_level: str = "info"


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from `environment` (default: the process's).

    Raises SettingsError naming the variable that is missing, malformed or unknown.
    """
    source = os.environ if environment is None else environment
    known = {field.encode_name: field for field in msgspec.structs.fields(Settings)}
    raw: dict[str, object] = {}
    for name, text in source.items():
        if not name.startswith(PREFIX) or (field := known.get(name.removeprefix(PREFIX).lower())) is None:
            continue
        raw[field.encode_name] = [item for item in text.split(",") if item] if field.type == list[str] else text
    missing = [name for name, field in known.items() if field.required and name not in raw]
    if missing:
        raise SettingsError(f"missing environment variable {PREFIX}{missing[0].upper()}")
    try:
        return msgspec.convert(raw, Settings, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise SettingsError(f"bad setting: {error} (environment variables {PREFIX}*)") from error


def settings_environment(settings: Settings) -> dict[str, str]:
    """The environment variables from which `load_settings` makes the same object (used by the local stack)."""
    pairs: dict[str, str] = {}
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        pairs[PREFIX + field.encode_name.upper()] = ",".join(value) if isinstance(value, list) else str(value)
    return pairs


def _decode_path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)
