"""The acquirer that the settings name."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import assert_never

from prometheus_client import CollectorRegistry

from ops.runtime.settings import Settings, SettingsError
from ops.runtime.tls import client_context
from streams.provider.port import ProviderComponent
from streams.provider.simulator import SimulatorProvider
from streams.provider.stripe import StripeProvider


def open_provider(settings: Settings, registry: CollectorRegistry | None = None) -> ProviderComponent:
    """The provider of `provider_kind`. Raises SettingsError when it cannot be used as it is configured."""
    url, timeout_s = settings.provider_url, settings.provider_timeout_s
    match settings.provider_kind:
        case "simulator":
            return SimulatorProvider(url, timeout_s=timeout_s, tls=client_context(settings), registry=registry)
        case "stripe":
            if settings.mode == "live" and not url.startswith("https://"):
                raise SettingsError("provider_url has to be https in live mode")
            secret = _secret(settings.provider_secret_file, settings.mode)
            # A public API: the system's authorities vouch for it, and not ours.
            tls = ssl.create_default_context()
            return StripeProvider(url, secret=secret, timeout_s=timeout_s, tls=tls, registry=registry)
        case _:
            assert_never(settings.provider_kind)


def _secret(path: Path, mode: str) -> str:
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"provider_secret_file: cannot read {path}") from None
    if not secret.startswith(("sk_", "rk_")) or not secret.isprintable() or " " in secret:
        raise SettingsError(f"provider_secret_file: {path} does not hold a secret key (sk_... or rk_...)")
    if mode == "live" and not secret.startswith(("sk_live_", "rk_live_")):
        raise SettingsError(f"provider_secret_file: {path} holds a test key in live mode")
    return secret
