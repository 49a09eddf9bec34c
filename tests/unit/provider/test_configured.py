"""Which acquirer is spoken to is a setting; one that cannot work is said at the start, not at the first payment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ops.runtime.settings import Settings, SettingsError, load_settings, settings_environment
from streams.provider.configured import open_provider
from streams.provider.stripe import StripeProvider


def settings(**fields: Any) -> Settings:
    paths = {name: Path("/none") for name in ("tls_ca", "tls_cert", "tls_key", "state_dir", "secrets_dir")}
    return Settings(
        **{
            **paths,
            "service": "provider-gateway",
            "kafka_bootstrap": "",
            "cassandra_contact_points": [],
            "cassandra_port": 0,
            "schema_registry_url": "",
            "provider_kind": "stripe",
            "provider_url": "https://api.stripe.com",
            "batch_processor_url": "",
            "admin_port": 0,
            **fields,
        }
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "stripe.key"
    path.write_text("sk_test_1\n")
    return path


def test_a_real_acquirer_is_a_configuration(secret: Path) -> None:
    chosen = settings(provider_secret_file=secret)
    assert isinstance(open_provider(chosen), StripeProvider)
    assert load_settings(settings_environment(chosen)) == chosen


@pytest.mark.parametrize(
    ("text", "mode", "url"),
    [
        (None, "test", "https://api.stripe.com"),
        ("", "test", "https://api.stripe.com"),
        ("pk_test_1", "test", "https://api.stripe.com"),  # publishable: every browser has it
        ("sk_test_1\nsk_test_2", "test", "https://api.stripe.com"),
        ("sk_test_1", "live", "https://api.stripe.com"),
        ("sk_live_1", "live", "http://api.stripe.com"),
    ],
)
def test_what_cannot_work_is_refused_without_showing_the_secret(
    tmp_path: Path, text: str | None, mode: str, url: str
) -> None:
    path = tmp_path / "stripe.key"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        open_provider(settings(provider_secret_file=path, mode=mode, provider_url=url))
    assert "sk_test" not in str(refused.value)
    assert "sk_live" not in str(refused.value)


def test_an_acquirer_that_nobody_knows_is_a_bad_setting(secret: Path) -> None:
    environment = settings_environment(settings(provider_secret_file=secret))
    with pytest.raises(SettingsError):
        load_settings({**environment, "PAYMENTS_PROVIDER_KIND": "paypal"})
