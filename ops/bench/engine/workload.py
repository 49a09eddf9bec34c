"""The workload that all contenders run: movements of accounts in, their new balances out. Avro, about 120 bytes.

Per record: decode (10 fields), add the amount to the account's changelog-backed balance, encode one output (10 fields).
The input repeats a cycle of movements, so that the right balances after any number of them can be calculated.
Needs nothing but fastavro: a contender in another environment imports it too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fastavro import parse_schema, schemaless_reader, schemaless_writer

PARTITIONS = 4
FEW_KEYS = 10_000
HEADER = b"\x00\x00\x00\x00\x01"  # the Confluent wire format's: magic byte and schema id


def _schema(name: str, number: str) -> Any:
    fields = [("id", "string"), ("account", "string"), ("merchant_id", "string"), ("type", "string")]
    fields += [(number, "long"), ("currency", "string"), ("occurred_at", "long"), ("sequence", "long")]
    fields += [("reference", "string"), ("description", "string")]
    return {"type": "record", "name": name, "fields": [{"name": field, "type": type_} for field, type_ in fields]}


MOVEMENT: Any = _schema("Movement", "amount")
BALANCE: Any = _schema("Balance", "balance")
_MOVEMENT = parse_schema(MOVEMENT)
_BALANCE = parse_schema(BALANCE)


def decode_movement(value: bytes) -> Any:
    """The fields of an input."""
    buffer = BytesIO(value)
    buffer.seek(len(HEADER))
    return schemaless_reader(buffer, _MOVEMENT)


def decode_balance(value: bytes) -> Any:
    """The fields of an output."""
    buffer = BytesIO(value)
    buffer.seek(len(HEADER))
    return schemaless_reader(buffer, _BALANCE)


def encode_movement(fields: Any) -> bytes:
    """The bytes of an input."""
    buffer = BytesIO()
    buffer.write(HEADER)
    schemaless_writer(buffer, _MOVEMENT, fields)
    return buffer.getvalue()


def encode_balance(fields: Any) -> bytes:
    """The bytes of an output."""
    buffer = BytesIO()
    buffer.write(HEADER)
    schemaless_writer(buffer, _BALANCE, fields)
    return buffer.getvalue()


def balance_after(movement: Any, balance: int) -> Any:
    """The output for `movement`, which it takes apart."""
    del movement["amount"]
    movement["balance"] = balance
    movement["type"] = "account.balance_changed"
    return movement


def encode_state(balance: int) -> bytes:
    """A balance as its changelog and store have it."""
    return b"%d" % balance


@dataclass(frozen=True)
class Movements:
    """The input over so many accounts: few, and all are in every cache; many, and hardly one is seen twice."""

    keys: int = FEW_KEYS

    @property
    def cycle(self) -> int:
        """How many movements there are before the first comes again."""
        return 100_000 if self.keys <= FEW_KEYS else 2_000_000

    def movement(self, index: int) -> tuple[bytes, int]:
        """(account, amount) of the input at place `index` of the cycle."""
        return self.account(index * 7919 % self.keys), index * 31 % 1000 + 1

    def account(self, number: int) -> bytes:
        """The key of the account of this number, below `keys`."""
        return b"acc_%08d" % number

    def movement_fields(self, index: int, occurred_at: int) -> tuple[bytes, Any]:
        """(key, fields) of the input at place `index`; `occurred_at` in epoch microseconds."""
        account, amount = self.movement(index % self.cycle)
        fields = {
            "id": f"evt_{index:012d}",
            "account": account.decode(),
            "merchant_id": f"mer_{index % 97:08d}",
            "type": "account.movement",
            "amount": amount,
            "currency": "EUR",
            "occurred_at": occurred_at,
            "sequence": index,
            "reference": f"R{index % self.cycle:09d}",
            "description": "Order of two items, shipped",
        }
        return account, fields

    def encoded(self) -> Iterator[tuple[bytes, bytes]]:
        """One cycle of the input as (key, value)."""
        for index in range(self.cycle):
            account, fields = self.movement_fields(index, 1_760_000_000_000_000 + index)
            yield account, encode_movement(fields)

    def expected(self, taken: dict[int, int]) -> tuple[dict[bytes, int], dict[bytes, int]]:
        """(balance, number of inputs) by account after the first `taken[p]` inputs of each partition p."""
        cycles: dict[int, list[tuple[bytes, int]]] = {partition: [] for partition in range(PARTITIONS)}
        for index in range(self.cycle):
            account, amount = self.movement(index)
            cycles[partition_of(account)].append((account, amount))
        balances: dict[bytes, int] = {}
        counts: dict[bytes, int] = {}
        for partition, cycle in cycles.items():
            whole, rest = divmod(taken.get(partition, 0), len(cycle))
            for at, (account, amount) in enumerate(cycle):
                times = whole + (at < rest)
                if times:
                    balances[account] = balances.get(account, 0) + amount * times
                    counts[account] = counts.get(account, 0) + times
        return balances, counts


def murmur2(data: bytes) -> int:
    """The hash by which Kafka's clients place keys."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k ^= k >> 24
        h = (h * m & mask) ^ (k * m & mask)
    rest = data[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h ^= h >> 13
    h = h * m & mask
    return h ^ (h >> 15)


def partition_of(key: bytes) -> int:
    """The partition of a key, as librdkafka's `murmur2_random` and Java's default have it."""
    return (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
