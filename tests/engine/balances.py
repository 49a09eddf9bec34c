"""The engine's test worker: a decider that keeps balances, an effector that answers after a durable timer.

Run as a process of its own (`python -m tests.engine.balances`) so that tests can kill it for real. Input values are
amounts as decimal text; every input makes one output `<offset>:<balance after it>` under the same key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Sequence
from pathlib import Path

from streams.exactly_once.agent import DeadLetter
from streams.exactly_once.app import App
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.failpoints import configure
from streams.exactly_once.records import TIMERS, Input, Output, Record
from streams.exactly_once.table_spec import TableSpec


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
    """A dead letter as JSON, enough for a test to recognise it."""
    return json.dumps([letter.source_topic, letter.source_offset, letter.error_class, letter.error_text]).encode()


BALANCES = TableSpec("balances", encode=lambda value: str(value).encode(), decode=int)


def build(app_id: str, kafka: str, tls: dict[str, str], state_dir: Path, instance: str | None) -> App:
    """The app under test: topics `<app>.in` -> decider `sums` -> `<app>.out` -> effector `echo` -> `<app>.echo`."""
    app = App(
        app_id,
        kafka=kafka,
        tls=tls,
        state_dir=state_dir,
        instance_id=instance,
        dead_letters=lambda topic: Output(f"{app_id}.dlq", encode_dead_letter),
    )
    source = Input(f"{app_id}.in", decode_amount)
    sums_out = Output(f"{app_id}.out", encode_text)
    echo_out = Output(f"{app_id}.echo", encode_text)

    @app.decider("sums", inputs=[source], outputs=[sums_out], tables=[BALANCES])
    def sums(batch: Sequence[Record], state: State, effects: Effects) -> None:
        """Add every amount to its key's balance."""
        for record in batch:
            if record.value == 666:
                raise ValueError("the beast")
            balance = (state.get(BALANCES, record.key) or 0) + record.value
            effects.put(BALANCES, record.key, balance)
            effects.send(sums_out, f"{record.offset}:{balance}", key=record.key)

    @app.effector("echo", inputs=[Input(f"{app_id}.out", bytes.decode)], outputs=[echo_out], timers=True)
    async def echo(record: Record, state: State, effects: Effects) -> None:
        """Answer every record with itself: those of even offset at once, the others through a durable timer."""
        if record.topic == TIMERS:
            effects.send(echo_out, record.value.payload.decode(), key=record.key)
        elif record.offset % 10 == 1:
            effects.set_timer(record.key, record.value, record.timestamp_ms + 200, record.value.encode())
        else:
            await asyncio.sleep(0)
            effects.send(echo_out, record.value, key=record.key)

    return app


async def run(app: App) -> None:
    """Run until SIGTERM; raises what made a lane fail."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await app.start()
    failed = asyncio.create_task(app.wait_until_stopped())
    await asyncio.wait({failed, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    await app.stop()
    if app.failure is not None:
        raise app.failure


def main() -> None:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--app", required=True)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--tls", default="{}")
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--instance")
    parser.add_argument("--failpoints", default="")
    options = parser.parse_args()
    configure(options.failpoints)
    app = build(options.app, options.kafka, json.loads(options.tls), options.state, options.instance)
    asyncio.run(run(app))


if __name__ == "__main__":
    main()
