"""When calls of a provider that seems to be gone are worth sending: a circuit breaker as a pure state machine.

CLOSED: every call goes out; so many failures in a row open it. OPEN: none does, for a while. HALF_OPEN: a few probes
do; the first that is answered decides. Times are milliseconds of whatever clock the caller passes in.

Ours and not a library's: the ones that are kept (purgatory, pybreaker, circuitbreaker, aiobreaker) count exceptions
and read the clock themselves. Here failures are values of the port, a refusal has to say when to come back, and the
table in the tests decides with times of its own; adapting a library to that is longer than this file.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from msgspec.structs import replace

from streams.domain.envelope import Value


class CircuitState(Enum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitPolicy(Value, frozen=True, kw_only=True, gc=False):
    """The defaults suit the local stack: with rounds 5 s apart, all of a payment's fit the contract's 45 s."""

    failures_max: int = 32
    """In a row, from any payment. Half of the places (see `breaker`): an outage under load fills them within one
    time-out, while payments whose own cards fail are always followed by a status query that succeeds."""
    open_ms: int = 5_000
    probes_max: int = 2
    """At once: one could be a payment that fails by itself."""


class Circuit(Value, frozen=True, kw_only=True, gc=False):
    """State of a circuit. `open_until_ms` is None while it is closed; `probes` are under way."""

    failures: int = 0
    open_until_ms: int | None = None
    probes: int = 0


class Admission(NamedTuple):
    """Whether a call may go out, and as a probe; else `wait_ms` says when to come back."""

    circuit: Circuit
    is_probe: bool = False
    wait_ms: int | None = None


def state_of(circuit: Circuit, now_ms: int) -> CircuitState:
    """The circuit's state at `now_ms`."""
    if circuit.open_until_ms is None:
        return CircuitState.CLOSED
    return CircuitState.OPEN if now_ms < circuit.open_until_ms else CircuitState.HALF_OPEN


def admit(circuit: Circuit, policy: CircuitPolicy, now_ms: int) -> Admission:
    """What becomes of a call at `now_ms`."""
    match state_of(circuit, now_ms):
        case CircuitState.CLOSED:
            return Admission(circuit)
        case CircuitState.HALF_OPEN if circuit.probes < policy.probes_max:
            return Admission(replace(circuit, probes=circuit.probes + 1), is_probe=True)
        case CircuitState.HALF_OPEN:
            return Admission(circuit, wait_ms=policy.open_ms)  # as if the probes failed: by then it is known
        case CircuitState.OPEN:
            assert circuit.open_until_ms is not None
            return Admission(circuit, wait_ms=circuit.open_until_ms - now_ms)


def answered(circuit: Circuit, policy: CircuitPolicy, now_ms: int, *, is_probe: bool, failed: bool | None) -> Circuit:
    """The circuit after a call that was admitted has ended; `failed` is None when its end tells nothing (cancelled).

    While it is not closed only probes count: the others were sent before it opened, and tell of that time.
    """
    if is_probe:
        circuit = replace(circuit, probes=max(0, circuit.probes - 1))
    if failed is None or (circuit.open_until_ms is not None and not is_probe):
        return circuit
    if not failed:
        return replace(circuit, failures=0, open_until_ms=None)
    failures = circuit.failures + 1
    opens = failures >= policy.failures_max  # as a failed probe always is
    return replace(circuit, failures=failures, open_until_ms=now_ms + policy.open_ms if opens else None)
