"""What the supervisor tells the commands: `run/state.json`, replaced whole at each change."""

from __future__ import annotations

import enum
import fcntl
from pathlib import Path

import msgspec

from ops.local.layout import Home, write_atomically


class ProcessState(enum.StrEnum):
    WAITING = "waiting"  # for what it needs
    STARTING = "starting"  # running, not ready yet
    RUNNING = "running"  # ready
    RESTARTING = "restarting"  # ended by itself; starts again after a pause
    STOPPING = "stopping"
    STOPPED = "stopped"
    DONE = "done"  # a step that succeeded
    FAILED = "failed"  # a step that was given up


class UnitState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    instance: int
    is_step: bool
    state: ProcessState
    pid: int | None
    restarts: int
    log: Path
    message: str = ""


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    supervisor_pid: int | None  # None: the supervisor stopped in good order
    units: list[UnitState]

    @property
    def processes(self) -> list[UnitState]:
        return [unit for unit in self.units if not unit.is_step]

    @property
    def is_ready(self) -> bool:
        settled = {ProcessState.RUNNING, ProcessState.DONE}
        return bool(self.units) and all(unit.state in settled for unit in self.units)

    @property
    def failed_step(self) -> UnitState | None:
        return next((unit for unit in self.units if unit.state is ProcessState.FAILED), None)


def write_state(home: Home, state: StackState) -> None:
    write_atomically(home.state_file, msgspec.json.format(msgspec.json.encode(state, enc_hook=str)))


def read_state(home: Home) -> StackState | None:
    """The last state written; None when this home never ran."""
    if not home.state_file.exists():
        return None
    return msgspec.json.decode(home.state_file.read_bytes(), type=StackState, dec_hook=lambda kind, value: kind(value))


def supervisor_is_alive(home: Home) -> bool:
    """Whether a supervisor holds this home, told by its file lock: a reused pid cannot deceive it."""
    if not home.supervisor_lock.exists():
        return False
    with home.supervisor_lock.open("r") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
