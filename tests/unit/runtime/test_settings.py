"""Settings from the environment: what is missing or cannot be meant is said in one sentence that names the variable."""

from __future__ import annotations

import pytest

from ops.runtime.settings import SettingsError, load_settings, settings_environment
from tests.unit.api.platform_in_memory import api_settings

ENVIRONMENT = settings_environment(api_settings())


def test_what_the_local_stack_writes_is_what_a_service_reads() -> None:
    assert load_settings(ENVIRONMENT) == api_settings()
    changed = api_settings(key_requests_per_s=12.5, commands_waiting_max=500, command_wait_max_s=0.5)
    assert load_settings(settings_environment(changed)) == changed


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("KEY_REQUESTS_PER_S", "0", "PAYMENTS_KEY_REQUESTS_PER_S is 0: it has to be a finite number above 0"),
        ("KEY_REQUESTS_PER_S", "inf", "PAYMENTS_KEY_REQUESTS_PER_S is inf: it has to be a finite number above 0"),
        ("KEY_REQUESTS_PER_S", "nan", "PAYMENTS_KEY_REQUESTS_PER_S is nan: it has to be a finite number above 0"),
        ("KEY_REQUESTS_PER_S", "many", "PAYMENTS_KEY_REQUESTS_PER_S is 'many': Expected `float`, got `str`"),
        (
            "KEY_REQUESTS_BURST",
            "0.5",
            "PAYMENTS_KEY_REQUESTS_BURST is 0.5: below 1 no request would ever be let through",
        ),
        ("KEY_REQUESTS_IN_FLIGHT", "-1", "PAYMENTS_KEY_REQUESTS_IN_FLIGHT is -1: it has to be a finite number above 0"),
        ("KEY_REQUESTS_IN_FLIGHT", "1.5", "PAYMENTS_KEY_REQUESTS_IN_FLIGHT is '1.5': Expected `int`, got `str`"),
        ("ADDRESS_REQUESTS_PER_S", "-3", "PAYMENTS_ADDRESS_REQUESTS_PER_S is -3: it has to be a finite number above 0"),
        ("ADDRESS_REQUESTS_BURST", "0", "PAYMENTS_ADDRESS_REQUESTS_BURST is 0: it has to be a finite number above 0"),
        ("COMMANDS_WAITING_FREE", "0", "PAYMENTS_COMMANDS_WAITING_FREE is 0: it has to be a finite number above 0"),
        ("COMMAND_WAIT_MAX_S", "0", "PAYMENTS_COMMAND_WAIT_MAX_S is 0: it has to be a finite number above 0"),
        (
            "COMMANDS_WAITING_MAX",
            "399",
            "PAYMENTS_COMMANDS_WAITING_MAX is 399: it has to be at least PAYMENTS_COMMANDS_WAITING_FREE, which is 400",
        ),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_at_the_start(variable: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({**ENVIRONMENT, f"PAYMENTS_{variable}": text})
    assert str(refused.value) == sentence


def test_a_variable_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match="missing environment variable PAYMENTS_TLS_CA"):
        load_settings({name: text for name, text in ENVIRONMENT.items() if name != "PAYMENTS_TLS_CA"})


def test_what_kills_a_service_at_a_signal_is_refused_where_money_is_real() -> None:
    armed = {**ENVIRONMENT, "PAYMENTS_FAILPOINTS_FILE": "/tmp/failpoints"}
    assert str(load_settings(armed).failpoints_file) == "/tmp/failpoints"
    with pytest.raises(SettingsError, match="PAYMENTS_FAILPOINTS_FILE is set in mode live"):
        load_settings({**armed, "PAYMENTS_MODE": "live"})
