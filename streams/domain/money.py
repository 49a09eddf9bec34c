"""Money is integer minor units and an ISO 4217 code. Never a float."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from iso4217 import Currency

AMOUNT_MIN = 1
AMOUNT_MAX = 99_999_999_999
"""The contract's limit, in minor units of any currency: a sum of 90 million such amounts still fits 63 bits."""


@cache
def exponents() -> Mapping[str, int]:
    """Decimal places of each ISO 4217 code in which one can pay: gold and the like have none and are left out."""
    return {currency.code: currency.exponent for currency in Currency if currency.exponent is not None}


def is_currency(code: str) -> bool:
    """True for an upper-case ISO 4217 code in which one can pay."""
    return code in exponents()


def is_amount(amount: int) -> bool:
    """True for an amount in minor units that a payment may have."""
    return AMOUNT_MIN <= amount <= AMOUNT_MAX


def formatted(amount: int, currency: str) -> str:
    """An amount in major units with the currency's decimal places: 2500 USD is "25.00", 2500 JPY is "2500".

    Raises KeyError for an unknown currency.
    """
    exponent = exponents()[currency]
    sign = "-" if amount < 0 else ""
    digits = str(abs(amount)).rjust(exponent + 1, "0")
    if exponent == 0:
        return sign + digits
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"
