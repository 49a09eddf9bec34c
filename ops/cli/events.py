"""`payments events tail`: what is committed to a topic, decoded, as JSON lines, with the auditor's certificate."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any

import msgspec
import typer

from ops.cli.stack import HomeOption, chosen_home, plain_errors
from ops.local.access import Access, servers_answer
from ops.local.errors import StackError
from ops.runtime.clock import to_rfc3339
from streams.exactly_once.errors import Poison
from topics import catalog
from topics.codec import Codec
from topics.committed import CommittedReader, CommittedRecord, Offsets

AUDITOR = "auditor"
EVENTS = "payments.events"

app = typer.Typer(help="Follow events.", no_args_is_help=True)
app.callback()(lambda: None)  # so that `tail` is a word of its own


@app.command()
def tail(
    kinds: Annotated[
        list[str] | None, typer.Option("--type", help="payment.created, payment.*, CommandRejected")
    ] = None,
    payment: Annotated[str | None, typer.Option(help="Only this payment's: pay_...")] = None,
    since_s: Annotated[int | None, typer.Option("--since", min=0, help="Begin so many seconds ago.")] = None,
    everything: Annotated[bool, typer.Option("--from-beginning", help="Begin with the first one kept.")] = False,
    follow: Annotated[bool, typer.Option(help="Go on until Ctrl-C, or end where the topic ends now.")] = True,
    topic: Annotated[str, typer.Option(help="Another topic of records.")] = EVENTS,
    home: HomeOption = None,
) -> None:
    """Print events as JSON lines, from now on unless told otherwise; personal data stays encrypted."""
    with plain_errors(), servers_answer():
        if topic not in {entry.name for entry in catalog.all_topics() if entry.records}:
            raise StackError(f"There is no topic {topic} with records.", "`payments topics ls` lists the topics.")
        access = Access(chosen_home(home))
        reader, codec = CommittedReader(access.kafka(AUDITOR), AUDITOR), access.open_codec(AUDITOR, topic)
        begin = _begin(reader, topic, since_s, everything=everything)
        records = reader.follow(begin) if follow else reader.read(begin, reader.ends([topic]))
        key = None if payment is None else payment.encode()
        _print(records, codec, kinds or (), key)


def _begin(reader: CommittedReader, topic: str, since_s: int | None, *, everything: bool) -> Offsets:
    if everything:
        return reader.beginnings([topic])
    if since_s is not None:
        return reader.since([topic], int((time.time() - since_s) * 1000))
    return reader.ends([topic])


def _print(
    records: Iterator[CommittedRecord | None] | Iterator[CommittedRecord],
    codec: Codec,
    kinds: Sequence[str],
    key: bytes | None,
) -> None:
    for record in records:
        if record is None:
            sys.stdout.flush()
        elif key is None or record.key == key:
            document = _document(record, codec)
            if _is_wanted(document, kinds):
                sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def _document(record: CommittedRecord, codec: Codec) -> dict[str, Any]:
    """Where it lies, when it was appended, and its fields (bytes in base64), or why they cannot be read."""
    where = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "at": to_rfc3339(record.at_ms * 1000),
        "key": None if record.key is None else record.key.decode(errors="backslashreplace"),
    }
    try:
        message = codec.decode(record.topic, record.value)
    except Poison as error:
        return {**where, "record": None, "unreadable": str(error)}
    return {**where, "record": message.name, "fields": message.fields}


def _is_wanted(document: dict[str, Any], kinds: Sequence[str]) -> bool:
    """By the event's type, as webhooks have it, or the record's name; `*` stands for anything."""
    names = (document["record"] or "", document.get("fields", {}).get("type", ""))
    return not kinds or any(fnmatchcase(name, kind) for name in names for kind in kinds)
