"""What a network may do to EndTxn, the request that decides a transaction, played to one worker: late, or twice.

Each leaves the app at work again, with every request delivered. It must have prepared topics and no worker yet.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from ops.chaos.engine.end_txn_proxy import EndTxnProxy, Held, Hold
from ops.chaos.engine.harness import Harness
from ops.chaos.engine.load import amounts, append, plain_producer

RECOVERY_S = 60.0
REACHED_S = 30.0
GIVES_UP_S = 20.0  # the engine waits 8 s for EndTxn
POLL_S = 0.05
INPUTS = 200


class NotReached(Exception):  # noqa: N818
    """The app never came to the place that was waited for."""


def request_late(harness: Harness, proxy: EndTxnProxy) -> None:
    """EndTxn reaches the broker after the client has given up, and after its successor has begun."""
    _late(harness, proxy, Hold.REQUEST)


def answer_late(harness: Harness, proxy: EndTxnProxy) -> None:
    """EndTxn is executed; its answer comes after the client has given up, and after its successor has begun."""
    _late(harness, proxy, Hold.ANSWER)


def request_twice(harness: Harness, proxy: EndTxnProxy) -> None:
    """The connection breaks under EndTxn; its first copy comes in the middle of a later transaction.

    Under one epoch for all transactions a kill right after it would leave half a transaction, outputs without offsets.
    """
    held = _committing(harness, proxy, Hold.CUT)
    harness.recovery_s(RECOVERY_S)
    harness.settle(RECOVERY_S)  # nothing else is under way: the next transaction is this input's
    worker = harness.workers.all[0]
    harness.workers.arm(worker, "after_produce=hold:1")
    before = _outputs_sent(harness)
    _append_one(harness)
    _until(lambda: _outputs_sent(harness) > before, "the next transaction was never begun")
    _deliver(held)
    harness.workers.kill(worker)
    harness.workers.start()


def connections_break(harness: Harness, proxy: EndTxnProxy) -> None:
    """Every connection breaks at once while records come in."""
    harness.workers.start()
    harness.recovery_s(RECOVERY_S)
    append(harness.cluster, harness.topics, amounts(INPUTS, 1))
    proxy.cut_all()
    harness.recovery_s(RECOVERY_S)


def _late(harness: Harness, proxy: EndTxnProxy, how: Hold) -> None:
    held = _committing(harness, proxy, how)
    try:
        harness.workers.wait(harness.workers.all[0], GIVES_UP_S)
    except subprocess.TimeoutExpired:  # an engine that goes on shows what that leads to
        _deliver(held)
        return
    harness.recovery_s(RECOVERY_S)
    _deliver(held)


def _committing(harness: Harness, proxy: EndTxnProxy, how: Hold) -> Held:
    """A worker at work that has just sent an EndTxn, under whichever of its lanes' ids; it is held."""
    harness.workers.start()
    harness.recovery_s(RECOVERY_S)
    held = proxy.hold(f"{harness.topics.id}-", how)
    append(harness.cluster, harness.topics, amounts(INPUTS, 1))
    if not held.reached.wait(REACHED_S):
        raise NotReached("no EndTxn")
    return held


def _deliver(held: Held) -> None:
    held.release()
    if not held.delivered.wait(REACHED_S):
        raise NotReached("the broker never answered the EndTxn that was released")


def _outputs_sent(harness: Harness) -> int:
    return len(harness.checker.read(harness.topics.out, "read_uncommitted"))


def _append_one(harness: Harness) -> None:
    """One input, of an amount that sets no timer."""
    producer = plain_producer(harness.cluster)
    producer.produce(harness.topics.inputs, "5", "k", 0)
    producer.flush(REACHED_S)


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + REACHED_S
    while not condition():
        if time.monotonic() > deadline:
            raise NotReached(what)
        time.sleep(POLL_S)
