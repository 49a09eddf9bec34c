"""An app that keeps nothing: one effector without tables.

`python -m tests.engine.app_without_tables` takes the arguments of the worker under test. Every input is answered on the
echo topic, `<partition>/<offset>:<amount>` under its key.
"""

from __future__ import annotations

from pathlib import Path

from ops.chaos.engine.topology import Topics
from ops.chaos.engine.worker import decode_amount, encode_dead_letter, encode_text, main
from streams.exactly_once.app import App
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.records import Input, Output, Record


def build(topics: Topics, kafka: str, tls: dict[str, str], state_dir: Path, instance: str | None) -> App:
    """`<app>.in` -> effector `pass` -> `<app>.echo`."""
    app = App(
        topics.id,
        kafka=kafka,
        tls=tls,
        state_dir=state_dir,
        instance_id=instance,
        dead_letters=lambda topic: Output(topics.dlq, encode_dead_letter),
        table_standby_replicas=0,
    )
    echo = Output(topics.echo, encode_text)

    @app.effector("pass", inputs=[Input(topics.inputs, decode_amount)], outputs=[echo])
    async def pass_on(record: Record, state: State, effects: Effects) -> None:
        """Answer every input."""
        effects.send(echo, f"{record.partition}/{record.offset}:{record.value}", key=record.key)

    return app


if __name__ == "__main__":
    main(build)
