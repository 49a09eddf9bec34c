"""CQL texts made of constants: a statement's marks always match its columns."""

from __future__ import annotations


def insert(table: str, columns: str) -> str:
    """A write of the data plane: all `columns` (comma-separated), then the timestamp of the row's revision."""
    return f"INSERT INTO {table} ({columns}) VALUES ({_marks(columns)}) USING TIMESTAMP ?"  # noqa: S608


def create(table: str, columns: str) -> str:
    """A write of the control plane: a lightweight transaction that adds a row once."""
    return f"INSERT INTO {table} ({columns}) VALUES ({_marks(columns)}) IF NOT EXISTS"  # noqa: S608


def select(columns: str, table: str, rest: str = "") -> str:
    """A read; `rest` is what follows the table: WHERE, ORDER BY, LIMIT."""
    return f"SELECT {columns} FROM {table} {rest}".rstrip()  # noqa: S608


def names(columns: str) -> list[str]:
    """The column names of a comma-separated list."""
    return [name.strip() for name in columns.split(",")]


def _marks(columns: str) -> str:
    return ", ".join("?" for _ in names(columns))
