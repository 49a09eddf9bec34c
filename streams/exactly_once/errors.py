"""Errors of the engine.

EngineError
├── Poison              a record cannot be decoded: to the DLQ, the lane goes on
├── VersionConflict     a put expected another version of the row: the handler's bug or a stale read
├── EffectRefused       an effect that could never commit (too large, unknown output): the handler failed
├── CommitAborted       the transaction provably did not commit: the lane rewinds and goes on
├── LaneSuspended       this member's generation is over: the lane waits for the next assignment
├── LaneLost            fenced, or the outcome of EndTxn is unknown: the process must exit
├── StateMismatch       offsets embedded in state and the group's differ: refuse to start
└── StateInUse          another process has the state directory open: refuse to start
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of all errors of the engine."""


class Poison(EngineError):  # noqa: N818 - the field's word for it
    """A record whose bytes mean nothing here. Raised by decoders; `str(error)` is kept in the dead letter."""


class VersionConflict(EngineError):  # noqa: N818
    """A versioned put found another version than it named."""


class EffectRefused(EngineError):  # noqa: N818
    """A staged effect can never be committed: record over the topic's limit, or an output that was not declared."""


class CommitAborted(EngineError):  # noqa: N818
    """The transaction was provably aborted; nothing of it is visible. The lane rewinds to its committed offset."""


class LaneSuspended(EngineError):  # noqa: N818
    """The group has moved on to another generation. Nothing was committed; the next assignment decides."""


class LaneLost(EngineError):  # noqa: N818
    """Fenced, or EndTxn's outcome is unknown. Retrying could tear a transaction: the process must exit."""


class StateMismatch(EngineError):  # noqa: N818
    """A group's offset and the one embedded in the state disagree; the message names the command that moves both."""


class StateInUse(EngineError):  # noqa: N818
    """The state directory belongs to a process that still runs."""
