"""The one typed settings object, read from `PAYMENTS_*` environment variables at a service's entry point.

Nothing else in the platform reads the environment. Secrets never travel in it: settings hold the paths of files.
"""

from __future__ import annotations

import math
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
    failpoints_file: Path = Path()  # what SIGUSR1 arms, for `payments chaos`; unset where money is real

    # payment-api's public port; above these it is 429: api/limits.py (rate_limited), api/admission.py (overloaded).
    # What the contract promises on the local stack, 500 requests/s and 200 in flight per key, is half of this.
    key_requests_per_s: float = 1_000.0  # of one API key, for ever
    key_requests_burst: float = 2_000.0  # of one API key, at once
    key_requests_in_flight: int = 400
    address_requests_per_s: float = 2_000.0  # of one address: several keys may call from behind it
    address_requests_burst: float = 4_000.0
    commands_waiting_max: int = 10_000  # unanswered at once; at 300 answers/s that is half a minute of catching up
    commands_waiting_free: int = 400  # so few are never too many: as many as one key may have in flight
    command_wait_max_s: float = 10.0  # a command that would wait longer is refused


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
        settings = msgspec.convert(raw, Settings, strict=False, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        complaint, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`").partition("[")[0]
        raise SettingsError(f"{PREFIX}{name.upper()} is {source[PREFIX + name.upper()]!r}: {complaint}") from error
    _check(settings)
    return settings


def settings_environment(settings: Settings) -> dict[str, str]:
    """The environment variables from which `load_settings` makes the same object (used by the local stack)."""
    pairs: dict[str, str] = {}
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        pairs[PREFIX + field.encode_name.upper()] = ",".join(value) if isinstance(value, list) else str(value)
    return pairs


_POSITIVE = ("key_requests_per_s", "address_requests_per_s", "command_wait_max_s")
_ONE_OR_MORE = ("key_requests_burst", "key_requests_in_flight", "address_requests_burst", "commands_waiting_free")


def _check(settings: Settings) -> None:
    """What no type says: a limit that lets nothing through, or is none, is a mistake; so are faults on order, live."""
    if settings.mode == "live" and settings.failpoints_file != Path():
        raise SettingsError(
            f"{PREFIX}FAILPOINTS_FILE is set in mode live: it lets a signal kill the service, so unset it"
        )
    for name in (*_POSITIVE, *_ONE_OR_MORE):
        value = getattr(settings, name)
        if not math.isfinite(value) or value <= 0:
            raise SettingsError(f"{PREFIX}{name.upper()} is {value:g}: it has to be a finite number above 0")
        if name in _ONE_OR_MORE and value < 1:
            raise SettingsError(f"{PREFIX}{name.upper()} is {value:g}: below 1 no request would ever be let through")
    if settings.commands_waiting_max < settings.commands_waiting_free:
        raise SettingsError(
            f"{PREFIX}COMMANDS_WAITING_MAX is {settings.commands_waiting_max}: it has to be at least"
            f" {PREFIX}COMMANDS_WAITING_FREE, which is {settings.commands_waiting_free}"
        )


def _decode_path(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)
