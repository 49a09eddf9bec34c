"""What counts as card data, and what does not."""

from __future__ import annotations

import random

import pytest
from stdnum import luhn

from api.card_data import holds_card_number, is_forbidden_name, tree_holds_card_data

VISA = "4242424242424242"


@pytest.mark.parametrize(
    "text",
    [
        VISA,
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4242.4242.4242.4242",
        "4242\u00a04242\u00a04242\u00a04242",
        "4242\u20134242\u20144242\u22124242",  # en dash, em dash, minus
        "4242 - 4242 . 4242 -- 4242",
        "４２４２４２４２４２４２４２４２",  # full width
        "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",  # Arabic-Indic
        "order 7 4242 4242 4242 4242 today",  # another group before it
        "4242 4242 4242 4242 12 26",  # expiry behind it
        "card:4242424242424242.",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
        "6200000000000005",
        "4222222222222",  # thirteen digits
        "pm_4242424242424242",
        "pay_4242424242424242",
        "x4242424242424242x",
    ],
)
def test_a_card_number_is_found_however_it_is_written(text: str) -> None:
    assert holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4242424242424241",  # no Luhn sum
        "1234567812345670",  # Luhn, but no brand
        "0000000000000000",
        "424242424242424242424242",  # a longer group
        "14242424242424242",  # not at the edge of its group
        "4242,4242,4242,4242",
        "2026-11-22T18:07:00.123456Z",
        "550e8400-e29b-41d4-a716-446655440000",
        "42424242-4242-4242-4242-424242424242",  # a UUID of digits only
        "abcdefabcdef4abcaab4222222222222",  # one without dashes
        "pay_" + "4" * 26,
        "sk_test_" + "4" * 26 + "_" + "2" * 52,
        "00-42424242424242424242424242424242-4242424242424242-01",
        "Mozilla/5.0 (X11; Linux x86_64) Chrome/131.0.6778.139 Safari/537.36",
    ],
)
def test_other_digits_are_not_taken_for_one(text: str) -> None:
    assert not holds_card_number(text)


def test_luhn_and_length_agree_with_an_independent_library() -> None:
    chosen = random.Random(17)
    for _ in range(3_000):
        digits = "4" + "".join(chosen.choices("0123456789", k=chosen.randint(8, 21)))
        assert holds_card_number(digits) == (13 <= len(digits) <= 19 and luhn.is_valid(digits)), digits


def test_names_of_card_fields_are_found_whatever_their_spelling() -> None:
    for name in ("cardNumber", "card_number", "CARD-NO", "cvc", "CVV2", "exp_month", "expYear", "Expiry"):
        assert is_forbidden_name(name)
        assert tree_holds_card_data({"metadata": [{name: ""}]})
    for name in ("number", "card", "experience", "expires_at", "order"):
        assert not is_forbidden_name(name)


def test_numbers_are_looked_at_too() -> None:
    assert tree_holds_card_data({"amount": int(VISA)})
    assert not tree_holds_card_data({"amount": 99_999_999_999, "flag": True, "none": None, "rate": 1.5})
