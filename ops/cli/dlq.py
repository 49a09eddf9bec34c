"""`payments dlq ls|show|replay`: dead letters, read with the auditor's certificate, replayed with the operator's."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from ops.cli.stack import HomeOption, chosen_home, plain_errors
from ops.local.access import Access, servers_answer
from ops.local.errors import StackError
from ops.local.layout import SERVICES
from ops.runtime.clock import to_rfc3339
from ops.runtime.request_ids import new_request_id
from streams.exactly_once.errors import Poison
from topics import catalog, replays
from topics.codec import Codec
from topics.committed import CommittedReader
from topics.dead_letters import Letter, Place, find_letter, newest_letters, queues

AUDITOR, OPERATOR = "auditor", "operator"
CALL_S = 40.0  # a service reads a queue and waits for all replicas
CAUSE_CHARS = 100

app = typer.Typer(help="Look at dead letters and replay them.", no_args_is_help=True)
console = Console(highlight=False)

PlaceArgument = Annotated[str, typer.Argument(metavar="LETTER", help="<queue>/<partition>/<offset>, as `ls` shows it.")]


@app.command()
def ls(
    queue: Annotated[str | None, typer.Argument(help="One dead-letter topic; all of them without it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many of each queue.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    home: HomeOption = None,
) -> None:
    """List dead letters, the oldest first: place, time, source, cause."""
    with plain_errors(), servers_answer():
        names = queues() if queue is None else (_known(queue),)
        access = Access(chosen_home(home))
        reader, codec = CommittedReader(access.kafka(AUDITOR), AUDITOR), access.open_codec(AUDITOR, *names)
        letters = [letter for name in names for letter in newest_letters(reader, codec, name, limit)]
    if as_json:
        for letter in letters:
            sys.stdout.write(json.dumps(_summary(letter), ensure_ascii=False) + "\n")
        return
    for letter in letters:
        source = f"{letter.source_topic}/{letter.source_partition}/{letter.source_offset}"
        given_up = to_rfc3339(letter.at_ms * 1000)[: len("2026-11-22T18:07:00")]
        _print_line(f"{letter.place}  {given_up}Z  from {source}, key {_text(letter.key)}")
        _print_line(f"    {letter.error_class}: {letter.error_text}"[:CAUSE_CHARS])
    if not letters:
        console.print("No dead letters.")


@app.command()
def show(letter: PlaceArgument, home: HomeOption = None) -> None:
    """Print one letter as JSON: its record decoded where it can be; personal data stays encrypted."""
    with plain_errors(), servers_answer():
        place = _parsed(letter)
        access = Access(chosen_home(home))
        codec = access.open_codec(AUDITOR, place.queue, catalog.source_of(place.queue).name)
        found = find_letter(CommittedReader(access.kafka(AUDITOR), AUDITOR), codec, place)
        if found is None:
            raise StackError(f"There is no letter at {place}.", "`payments dlq ls` lists those that there are.")
        document = {**_summary(found), **_content(found, codec)}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")


@app.command()
def replay(
    letters: Annotated[list[str], typer.Argument(metavar="LETTER...", help="<queue>/<partition>/<offset>, each.")],
    home: HomeOption = None,
) -> None:
    """Publish letters again to the topics they came from, through each topic's one writer. Safe to repeat.

    Prints where each record lies now, one JSON object per line; exit code 1 when any was refused.
    """
    failed = False
    with plain_errors(), servers_answer():
        access = Access(chosen_home(home))
        for place in [_parsed(text) for text in letters]:
            try:
                sys.stdout.write(msgspec.json.encode(_replay(access, place)).decode() + "\n")
            except StackError as error:
                failed = True
                Console(stderr=True, highlight=False).print(f"{place}: {error.what} {error.way_out}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _replay(access: Access, place: Place) -> replays.Replayed:
    """Asks the service that writes the source topic; a client's topic is written with that client's certificate."""
    source = catalog.source_of(place.queue)
    if source.writer in SERVICES:
        return _ask(access, source.writer, place)
    codec = access.open_codec(source.writer, place.queue, source.name)
    replayer = replays.Replayer(source.writer, access.kafka(source.writer), codec)
    try:
        return replayer.replay(place, by=source.writer, request_id=new_request_id())
    except (replays.NoSuchLetter, replays.NotReplayable) as error:
        raise StackError(f"{error}.", "Nothing was published.") from error


def _ask(access: Access, service: str, place: Place) -> replays.Replayed:
    """The first instance of the service that answers."""
    body = msgspec.json.encode(replays.ReplayRequest(*place))
    for instance in range(access.config.instances(service)):
        answer = access.post(access.ports.admin(service, instance), replays.PATH, OPERATOR, body, CALL_S)
        if answer is None:
            continue
        status, content = answer
        if status == 200:
            return msgspec.json.decode(content, type=replays.Replayed)
        problem = msgspec.json.decode(content)
        raise StackError(
            f"{service} answers {status} {problem['code']}: {problem['detail']}.", "Nothing was published."
        )
    raise StackError(f"{service}, which writes the topic, does not answer.", "`payments status` shows what runs.")


def _summary(letter: Letter) -> dict[str, Any]:
    return {
        "letter": str(letter.place),
        "at": to_rfc3339(letter.at_ms * 1000),
        "source_topic": letter.source_topic,
        "source_partition": letter.source_partition,
        "source_offset": letter.source_offset,
        "key": _text(letter.key),
        "error_class": letter.error_class,
        "error_text": letter.error_text,
    }


def _content(letter: Letter, codec: Codec) -> dict[str, Any]:
    """Headers, and the record: its fields (bytes in base64), or its bytes and why they cannot be read."""
    headers = [{"key": key, "value": _text(value)} for key, value in letter.headers]
    if letter.source_offset < 0:
        return {"headers": headers, "record": None, "unreadable": "a timer of its reader", "value": letter.value}
    try:
        message = codec.decode(letter.source_topic, letter.value)
    except Poison as error:
        return {"headers": headers, "record": None, "unreadable": str(error), "value": letter.value}
    return {"headers": headers, "record": message.name, "fields": message.fields}


def _print_line(line: str) -> None:
    """What came with a bad record may not steer the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    console.print(shown, soft_wrap=True, markup=False)


def _text(data: bytes | None) -> str | None:
    """Keys and headers are UTF-8; what is not is shown with its bad bytes escaped."""
    return None if data is None else data.decode(errors="backslashreplace")


def _known(queue: str) -> str:
    if queue not in queues():
        raise StackError(f"There is no dead-letter topic {queue}.", f"There are: {', '.join(queues())}.")
    return queue


def _parsed(text: str) -> Place:
    try:
        place = Place.parse(text)
    except ValueError as error:
        raise StackError(f"{error}.", "`payments dlq ls` shows the places of letters.") from error
    _known(place.queue)
    return place
