"""Errors of the records.

RecordsError
├── RecordsUnavailable   Cassandra is away, too slow or short of replicas: try again, nothing is wrong with the data
├── RecordsRefused       Cassandra, or its driver, will never take this statement with these values
├── ItemsMissing         the answers of a completed batch are not recorded: the events that hold them are dead letters
└── MigrationError       the database and the migrations of this release do not fit together
"""

from __future__ import annotations


class RecordsError(Exception):
    """Base of all errors of the records."""


class RecordsUnavailable(RecordsError):  # noqa: N818 - reads as what is raised: "records unavailable"
    """An outage: the statement may or may not have been applied. Writes are idempotent, so repeating is safe."""


class RecordsRefused(RecordsError):  # noqa: N818
    """A value of the wrong type or an invalid statement: repeating it gives the same refusal."""


class ItemsMissing(RecordsError):  # noqa: N818 - as above
    """The message names the batch. Replay the dead letters of payments.events, then that of settlement.events."""


class MigrationError(RecordsError):
    """The message is one sentence for the person who ran the migration, with the way out."""
