"""Avro bodies: a schema as a tree of types, each of which reads and writes its own part of a record.

Compiled (ops/compiled): three times as fast as Python source made for each schema, five times fastavro. Written for
that: native integers (i64), final classes, no closures. It runs the same, slower, as plain Python.

Only what our schemas have is known: records, enums, arrays, nullable fields, the plain types. Writing is strict: a
field too many, too few or of another type is an error, never a default. Bytes from elsewhere mean nothing until they
are read to their end; whatever is wrong with them, or with a value, is one ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, final

import msgspec
from librt.strings import BytesWriter
from mypy_extensions import i64, u8

INT_MAX: Final = (1 << 31) - 1
LONG_MAX: Final = (1 << 63) - 1
_NEARLY_LONG_MAX: Final = (1 << 61) - 1
_SHIFT_MAX: Final = 63  # of the tenth byte of a long, which has one bit left


@final
class Cursor:
    """A place in a record's bytes that moves on as they are read."""

    def __init__(self, data: bytes, at: i64) -> None:
        self.data = data
        self.at: i64 = at
        self.end: i64 = len(data)

    def long(self) -> i64:
        """Zig-zag, seven bits a byte, lowest first, the high bit on all but the last."""
        data, at = self.data, self.at
        result: i64 = 0
        shift: i64 = 0
        while True:
            if at >= self.end:
                raise ValueError("the bytes end in the middle of the record")
            byte: i64 = data[at]
            at += 1
            if shift == _SHIFT_MAX and byte > 1:
                raise ValueError("an integer of more than 64 bits")
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.at = at
                return _unzigzag(result)
            shift += 7

    def bytes(self) -> bytes:
        """Bytes with their length before them."""
        length = self.long()
        at = self.at
        if length < 0:
            raise ValueError(f"a length of {length} where {self.end - at} bytes are left")
        end = at + length
        if length > self.end - at:
            raise ValueError(f"the bytes end in the middle of the record: {length} of {self.end - at} that are left")
        self.at = end
        return self.data[at:end]

    def byte(self) -> i64:
        """One byte."""
        at = self.at
        if at >= self.end:
            raise ValueError("the bytes end in the middle of the record")
        self.at = at + 1
        return self.data[at]


def _unzigzag(bits: i64) -> i64:
    # As plain Python `bits` has up to 64 bits and no sign; compiled it has 64 bits and one. This fits both.
    return ((bits >> 1) & LONG_MAX) ^ -(bits & 1)


def write_long(out: BytesWriter, value: i64) -> None:
    """Appends a long; the reverse of Cursor.long."""
    rest: i64 = (value << 1) ^ (value >> 63)
    while rest & ~0x7F:
        out.append(u8((rest & 0x7F) | 0x80))
        rest = (rest >> 7) & 0x1FFFFFFFFFFFFFF  # no sign comes in from the left
    out.append(u8(rest))


class Type:
    """One Avro type."""

    def read(self, cursor: Cursor) -> object:
        """The value at the cursor, which moves behind it. Raises ValueError."""
        raise NotImplementedError

    def write(self, out: BytesWriter, value: Any) -> None:
        """Appends the value. Raises what says how it does not fit: TypeError, ValueError, KeyError, AttributeError."""
        raise NotImplementedError


@final
class Text(Type):
    """string"""

    def read(self, cursor: Cursor) -> object:
        """A str."""
        return cursor.bytes().decode()

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes a str."""
        if not isinstance(value, str):
            raise TypeError(f"a string is a str, not {type(value).__name__}")
        encoded = value.encode()
        write_long(out, len(encoded))
        out.write(encoded)


@final
class Bytes(Type):
    """bytes"""

    def read(self, cursor: Cursor) -> object:
        """Some bytes."""
        return cursor.bytes()

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes bytes."""
        if not isinstance(value, bytes):
            raise TypeError(f"bytes are bytes, not {type(value).__name__}")
        write_long(out, len(value))
        out.write(value)


@final
class Boolean(Type):
    """boolean"""

    def read(self, cursor: Cursor) -> object:
        """True or False."""
        byte = cursor.byte()
        if byte > 1:
            raise ValueError(f"a boolean is 0 or 1, not {byte}")
        return byte == 1

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes True or False, and nothing that is only as good as true."""
        if value is True:
            out.append(1)
        elif value is False:
            out.append(0)
        else:
            raise TypeError(f"a boolean is True or False, not {type(value).__name__}")


@final
class Integer(Type):
    """int or long, which differ in what has a place in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_int = name == "int"

    def read(self, cursor: Cursor) -> object:
        """An int."""
        return cursor.long()

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes an int."""
        if not isinstance(value, int):
            raise TypeError(f"a {self.name} is an int, not {type(value).__name__}")
        number: int = value
        if not -INT_MAX - 1 <= number <= INT_MAX and (self.is_int or not _fits_long(number)):
            raise ValueError(f"{number} does not fit {self.name}")
        write_long(out, number)


def _fits_long(number: int) -> bool:
    # Twice, for speed: compiled, the numbers of the first line need no object.
    return -_NEARLY_LONG_MAX <= number <= _NEARLY_LONG_MAX or -LONG_MAX - 1 <= number <= LONG_MAX


@final
class Enumeration(Type):
    """enum. Reads as its symbol, or as the member of a Python enum that has the symbol as its value."""

    def __init__(self, symbols: list[str], members: list[object]) -> None:
        self.members = members
        self.places = {symbol: place for place, symbol in enumerate(symbols)}

    def read(self, cursor: Cursor) -> object:
        """The symbol, or what stands for it."""
        place = cursor.long()
        if place < 0 or place >= len(self.members):
            raise ValueError(f"there is no symbol {place}")
        return self.members[place]

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes a symbol, or a member of a Python enum whose value is one."""
        symbol = value._value_ if isinstance(value, Enum) else value  # `value.value` is a call
        write_long(out, self.places[symbol])


@final
class Nullable(Type):
    """A union of null, which comes first, and one other type."""

    def __init__(self, branch: Type) -> None:
        self.branch = branch

    def read(self, cursor: Cursor) -> object:
        """None, or the other type's value."""
        place = cursor.long()
        if place == 0:
            return None
        if place != 1:
            raise ValueError(f"there is no branch {place} of a nullable field")
        return self.branch.read(cursor)

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes None, or what the other type takes."""
        if value is None:
            out.append(0)
        else:
            out.append(2)
            self.branch.write(out, value)


@final
class Array(Type):
    """array. Reads as a list, or as a tuple, which values have."""

    def __init__(self, items: Type, as_tuple: bool) -> None:
        self.items = items
        self.as_tuple = as_tuple

    def read(self, cursor: Cursor) -> object:
        """All items. Blocks of them: a block's count is negative when its size in bytes follows."""
        found: list[object] = []
        while True:
            count = cursor.long()
            if count == 0:
                return tuple(found) if self.as_tuple else found
            if count < 0:
                count = -count
                cursor.long()
            left: i64 = cursor.end - cursor.at
            if count < 0 or count > left:  # an item has a byte at least
                raise ValueError(f"{count} items where {left} bytes are left")
            found += [self.items.read(cursor) for _ in range(count)]

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes a list or tuple, and writes one block of all items, then the empty block that ends them."""
        if isinstance(value, (list, tuple)):
            if value:
                write_long(out, len(value))
                for item in value:
                    self.items.write(out, item)
        else:
            raise TypeError(f"an array is a list, not {type(value).__name__}")
        out.append(0)


class Record(Type):
    """record. Its fields are set after it is made: they may name it.

    Writes mappings and values. A value is an immutable object whose attributes are the record's fields; what it was
    written as is kept for whoever writes the same object next: a decision puts one payment into its event and into its
    row, and one actor into all that follows from it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.names: list[str] = []
        self.types: list[Type] = []
        self._kinds: set[object] = set()  # types of values that are known to fit
        self._last: tuple[object, bytes] = (None, b"")  # swapped as one, so threads may share it

    def read(self, cursor: Cursor) -> object:
        """A dict of all fields."""
        return self.read_fields(cursor)

    def read_fields(self, cursor: Cursor) -> dict[str, object]:
        """All fields by their names."""
        fields: dict[str, object] = {}
        names, types = self.names, self.types
        for place in range(len(names)):
            fields[names[place]] = types[place].read(cursor)
        return fields

    def write(self, out: BytesWriter, value: Any) -> None:
        """Takes a mapping of all fields and no other (those that may be null may be missing), or a value."""
        if isinstance(value, msgspec.Struct):
            last, encoded = self._last
            if last is not value:
                encoded = self._encoded(value)
                self._last = (value, encoded)
            out.write(encoded)
        elif isinstance(value, dict):
            self._write_fields(out, value)
        else:
            self._write_fields(out, dict(value))

    def _write_fields(self, out: BytesWriter, fields: dict[str, Any]) -> None:
        names, types = self.names, self.types
        if len(fields) != len(names):
            fields = self._complete(fields)
        for place in range(len(names)):
            types[place].write(out, fields[names[place]])

    def _complete(self, fields: dict[str, Any]) -> dict[str, Any]:
        complete = dict(fields)
        for name in fields:
            if name not in self.names:
                raise ValueError(f"there is no field {name}")
        for place in range(len(self.names)):
            if isinstance(self.types[place], Nullable):
                complete.setdefault(self.names[place], None)
        return complete

    def _encoded(self, value: Any) -> bytes:
        kind = type(value)
        if kind not in self._kinds:
            check_kind(kind, self.names)
            self._kinds.add(kind)
        out = BytesWriter()
        names, types = self.names, self.types
        for place in range(len(names)):
            types[place].write(out, getattr(value, names[place]))
        return out.getvalue()


@final
class ValueRecord(Record):
    """record that is read as a value of a kind."""

    def __init__(self, name: str, kind: Callable[..., object]) -> None:
        super().__init__(name)
        self.kind = kind

    def read(self, cursor: Cursor) -> object:
        """A value, made of all fields by their names."""
        return self.kind(**self.read_fields(cursor))


def check_kind(kind: Any, names: list[str]) -> None:
    """Raises TypeError or ValueError for a type whose values cannot be kept as what they were written as."""
    if not issubclass(kind, msgspec.Struct) or not kind.__struct_config__.frozen:
        raise TypeError(f"{kind.__name__} is no frozen struct")
    if differing := set(names) ^ set(kind.__struct_fields__):
        raise ValueError(f"{kind.__name__} and the record differ in {min(differing)}")


def read_body(record: Record, data: bytes, start: int) -> Any:
    """The record whose body is all of `data` from `start` on. Raises ValueError, which says what is wrong."""
    cursor = Cursor(data, start)
    value = record.read(cursor)
    if cursor.at != cursor.end:
        raise ValueError(f"{cursor.end - cursor.at} bytes too many")
    return value


def write_body(record: Record, header: bytes, value: Any) -> bytes:
    """`header`, and the record after it. Raises ValueError when the value does not fit: which record, and why."""
    out = BytesWriter()
    out.write(header)
    try:
        record.write(out, value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the fields do not fit {record.name}: {type(error).__name__} {error}") from error
    return out.getvalue()
