"""Finds card data in what a client sent, so that it is refused before it reaches a log, a topic or a trace.

Found is: 13 to 19 digits, of any script, with spaces, dots and dashes dropped, beginning and ending at the edge of a
group of digits, with a card brand's prefix and a valid Luhn sum; or a field or parameter with the name of a card's.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

FORBIDDEN_NAMES = frozenset({"cardnumber", "cardno", "cvc", "cvv", "cvc2", "cvv2", "expmonth", "expyear", "expiry"})
"""Names of fields and parameters, lower case and without `_` and `-`."""

DIGITS_MIN = 13
DIGITS_MAX = 19

_OUR_SYNTAX = re.compile(
    r"(?<![0-9A-Za-z])(?:"
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"  # UUID
    r"|[0-9a-fA-F]{12}[1-8][0-9a-fA-F]{3}[89abAB][0-9a-fA-F]{15}"  # UUID without dashes: one of 800 would be refused
    r"|pay_[a-z2-7]{26}_secret_[a-z0-9]{1,16}_[a-z2-7]{52}"  # client secret
    r"|(?:pay|txn|evt|sb|we|wd|mer|key|pm|aud)_[a-z2-7]{26}"  # ids
    r"|[spr]k_(?:test|live)_[a-z2-7]{26}_[a-z2-7]{52}"  # API key
    r"|whsec_[A-Za-z0-9+/]{43}="  # endpoint secret
    r"|req_[0-9a-f]{32}"  # request id
    r"|00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"  # trace context
    r")(?![0-9A-Za-z])"
)
_CANDIDATE = re.compile(r"[0-9](?:[ .\-]*[0-9]){12,}")
_GROUP = re.compile(r"[0-9]+")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # the sum of a doubled digit's digits
_ENDS_MAX = DIGITS_MAX - DIGITS_MIN + 1  # more groups cannot end between the shortest and the longest number
_NAME = re.compile(r'"([^"]{1,64})"\s*:')

_BRANDS = re.compile(
    r"4"  # Visa
    r"|5[0-8]"  # Mastercard, Maestro
    r"|2(?:2(?:0[0-4]|2[1-9]|[3-9])|[3-6]|7[01]|720)"  # Mir, Mastercard's second range
    r"|3[47]|3(?:0[0-5]|09|[689])"  # American Express, Diners Club
    r"|35(?:2[89]|[3-8])"  # JCB
    r"|6"  # Discover, UnionPay, Maestro, RuPay
    r"|8[12]"  # UnionPay, RuPay
    r"|9(?:792|860)"  # Troy, UzCard
)


def holds_card_number(text: str) -> bool:
    """Whether a card number stands in `text`, however it is written."""
    if not text.isascii():
        text = "".join(map(_to_ascii, text))
    if _CANDIDATE.search(text) is None:
        return False
    text = _OUR_SYNTAX.sub("|", text)
    return any(_holds_pan(match.group()) for match in _CANDIDATE.finditer(text))


def is_forbidden_name(name: str) -> bool:
    """Whether a field or parameter of this name can only hold card data."""
    return name.replace("_", "").replace("-", "").lower() in FORBIDDEN_NAMES


def names_card_field(raw_json: str) -> bool:
    """Whether something that looks like a JSON member has a forbidden name, in JSON that may be malformed."""
    return any(is_forbidden_name(name) for name in _NAME.findall(raw_json))


def tree_holds_card_data(tree: object) -> bool:
    """Whether a parsed JSON document holds card data in a name, a text or a number. Depth is the parser's limit."""
    match tree:
        case str():
            return holds_card_number(tree)
        case bool() | None:
            return False
        case int():
            return DIGITS_MIN <= len(digits := str(abs(tree))) <= DIGITS_MAX and _is_pan(digits)
        case dict():
            return any(
                is_forbidden_name(name) or holds_card_number(name) or tree_holds_card_data(value)
                for name, value in tree.items()
            )
        case list():
            return any(map(tree_holds_card_data, tree))
        case _:
            return False


def _holds_pan(candidate: str) -> bool:
    """`candidate` is groups of ASCII digits with separators between them; any run of whole groups may be the number.

    Takes time in proportion to the groups, whatever they are: a body may be nothing but digits.
    """
    groups: list[str] = _GROUP.findall(candidate)
    digits = "".join(groups)
    ends = list(accumulate(map(len, groups)))
    sums = _luhn_sums(digits)
    behind = 0  # of the ends, the first that is far enough from `start`
    for start in (0, *ends[:-1]):
        while behind < len(ends) and ends[behind] - start < DIGITS_MIN:
            behind += 1
        for end in ends[behind : behind + _ENDS_MAX]:
            if end - start <= DIGITS_MAX and _luhn_is_valid(sums, start, end) and _BRANDS.match(digits, start):
                return True
    return False


def _is_pan(digits: str) -> bool:
    return _BRANDS.match(digits) is not None and _luhn_is_valid(_luhn_sums(digits), 0, len(digits))


def _luhn_sums(digits: str) -> tuple[list[int], list[int]]:
    """Running sums of the digits, those at even places doubled, and those at odd ones (ISO/IEC 7812-1 annex B)."""
    plain = [int(digit) for digit in digits]
    doubled = [_DOUBLED[digit] for digit in plain]
    even, odd = plain.copy(), plain
    even[::2], odd[1::2] = doubled[::2], doubled[1::2]
    return list(accumulate(even, initial=0)), list(accumulate(odd, initial=0))


def _luhn_is_valid(sums: tuple[list[int], list[int]], start: int, end: int) -> bool:
    """Of the digits from `start` to before `end`: the last one counts as it is, every second one before it doubled."""
    running = sums[end % 2]  # an odd end: the last digit is at an even place, and the odd ones are doubled
    return (running[end] - running[start]) % 10 == 0


def _to_ascii(character: str) -> str:
    """The digit, blank, dot or dash that a character of any script stands for; others as they are."""
    if character < "\x80":
        return character
    digit = unicodedata.digit(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if category in ("Pd", "Cf") or character == "\N{MINUS SIGN}":  # Cf: zero-width characters, soft hyphen
        return "-"
    if unicodedata.normalize("NFKC", character) == "." or character == "\N{MIDDLE DOT}":
        return "."
    return character
