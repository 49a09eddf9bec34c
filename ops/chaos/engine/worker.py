"""The worker that is killed for real: a decider that keeps balances and sets timers, an effector that answers it.

`python -m ops.chaos.engine.worker` is one process of the app under test. Input values are amounts as decimal text;
every input makes one output `<partition>/<offset>:<balance after it>` under the same key, and every output one echo.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.chaos.engine.mutants import mutant_named
from ops.chaos.engine.topology import BEAST, LATER, SLOW, TIMER_EVERY, Topics
from streams.exactly_once.agent import DeadLetter
from streams.exactly_once.app import App
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.failpoints import configure
from streams.exactly_once.records import TIMERS, Input, Output, Record
from streams.exactly_once.table_spec import TableSpec

TIMER_MS = 100
ECHO_LATER_MS = 200
SLOW_S = 0.1  # every other record of a slow key: what ran beside it would overtake it


def decode_amount(value: bytes) -> int:
    """An input's value. Raises Poison for what is no number."""
    try:
        return int(value)
    except ValueError as error:
        raise Poison(f"not an amount: {value[:20]!r}") from error


def encode_text(value: str) -> bytes:
    """An output's value."""
    return value.encode()


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """A dead letter as JSON: where it came from and why."""
    place = [letter.source_topic, letter.source_partition, letter.source_offset]
    return json.dumps([*place, letter.error_class, letter.error_text]).encode()


BALANCES = TableSpec("balances", encode=lambda value: str(value).encode(), decode=int)


def build(topics: Topics, kafka: str, tls: dict[str, str], state_dir: Path, instance: str | None) -> App:
    """The app under test: `<app>.in` -> decider `sums` -> `<app>.out` -> effector `echo` -> `<app>.echo`."""
    app = App(
        topics.id,
        kafka=kafka,
        tls=tls,
        state_dir=state_dir,
        instance_id=instance,
        dead_letters=lambda topic: Output(topics.dlq, encode_dead_letter),
    )
    sums_out, echo_out = Output(topics.out, encode_text), Output(topics.echo, encode_text)

    @app.decider("sums", inputs=[Input(topics.inputs, decode_amount)], outputs=[sums_out], tables=[BALANCES])
    def sums(batch: Sequence[Record], state: State, effects: Effects) -> None:
        """Add every amount to its key's balance; now and then set a timer, which tells of itself once."""
        for record in batch:
            if record.topic == TIMERS:
                effects.send(sums_out, f"timer:{record.value.name}", key=record.key)
                continue
            balance = (state.get(BALANCES, record.key) or 0) + record.value
            effects.put(BALANCES, record.key, balance)
            effects.send(sums_out, f"{record.partition}/{record.offset}:{balance}", key=record.key)
            if record.value == BEAST:
                raise ValueError("the beast")  # what it has staged must leave no trace
            if record.value % TIMER_EVERY == 1:
                name = f"{record.partition}/{record.offset}"
                effects.set_timer(record.key, name, record.timestamp_ms + TIMER_MS)

    @app.effector("echo", inputs=[Input(topics.out, bytes.decode)], outputs=[echo_out], timers=True)
    async def echo(record: Record, state: State, effects: Effects) -> None:
        """Answer every record with itself: most at once, some keys slowly or through a durable timer."""
        if record.topic == TIMERS:
            effects.send(echo_out, record.value.payload.decode(), key=record.key)
        elif record.key.endswith(LATER):
            effects.set_timer(record.key, record.value, record.timestamp_ms + ECHO_LATER_MS, record.value.encode())
        else:
            await asyncio.sleep(SLOW_S if record.key.endswith(SLOW) and record.offset % 2 else 0)
            effects.send(echo_out, record.value, key=record.key)

    return app


Build = Callable[[Topics, str, dict[str, str], Path, str | None], App]


async def run(app: App, arming: Path) -> int:
    """Run until SIGTERM or failure; the exit status. SIGUSR1 arms the failpoints that the file `arming` names.

    After a failure nothing may be committed: as in our services, nothing is stopped then, the process just ends.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: configure(arming.read_text()))
    await app.start()
    failed = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait({failed, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    failure = app.failure or app.crash_reason
    if failure is None:
        await app.stop()
        failure = app.failure
    if failure is not None:
        sys.stdout.write(f"{type(failure).__name__}: {failure}\n")
    return 0 if failure is None else 1


def main(build: Build = build) -> None:
    """Entry point of the worker process, of this app or of another one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--tls", default="{}")
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--instance")
    parser.add_argument("--failpoints", default="")
    parser.add_argument("--mutant", default="")
    options = parser.parse_args()
    faulthandler.register(signal.SIGUSR2)  # tells where a worker that does not end stands
    configure(options.failpoints)
    mutated = mutant_named(options.mutant).applied() if options.mutant else contextlib.nullcontext()
    with mutated:
        app = build(
            Topics(options.app, options.partitions),
            options.kafka,
            json.loads(options.tls),
            options.state,
            options.instance,
        )
        with asyncio.Runner() as runner:
            status = runner.run(run(app, options.state / "failpoints"))
            os._exit(status)  # Python would wait for Faust's threads, some of which never end after a broker was away


if __name__ == "__main__":
    main()
