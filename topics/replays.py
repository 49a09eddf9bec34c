"""Replay of dead letters: the one writer of a topic publishes a record of it again, when an operator asks it to.

The operator names a place in a queue and never brings bytes, so a replay can say nothing that was not said before. The
same letter may be replayed again: the record carries the ids that it always had, by which its readers know it. Who
asked, and for which letter, travels in the record's headers, so act and trace are one write (decision 0013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from confluent_kafka import KafkaError, KafkaException, Producer

from ops.runtime.admin import IDENTITY, AdminRoute
from ops.runtime.logs import exception_fields, logger
from ops.runtime.problem import REQUEST_ID_HEADER, problem_response
from ops.runtime.request_ids import known_request_id, new_request_id
from ops.runtime.settings import Settings
from ops.runtime.tls import kafka_security
from streams.exactly_once.errors import Poison
from topics import catalog
from topics.codec import Codec
from topics.committed import CommittedReader
from topics.dead_letters import Letter, Place, find_letter
from topics.registry import RegistryUnavailable

PATH = "/dead_letter_replays"
OPERATORS = frozenset({"operator"})
DELIVERY_TIMEOUT_S = 15.0
RECORD_BYTES_MAX = 2 << 20  # of the client; the topic's own limit is the broker's to enforce

REPLAYED_FROM, REPLAYED_BY, REPLAY_REQUEST = "replayed-from", "replayed-by", "replay-request"
"""Headers of a replayed record: the letter's place, the operator's identity, the request's id."""


class NoSuchLetter(LookupError):  # noqa: N818 - an answer, not a fault
    """There is no letter at this place, or it is too old and gone."""


class NotReplayable(Exception):  # noqa: N818
    """Publishing this letter again would help nobody, or is not ours to do; the message says why."""


class ReplayRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which letter."""

    queue: str
    partition: int
    offset: int


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """Where the record lies now."""

    letter: str
    topic: str
    partition: int
    offset: int
    request_id: str


class Replayer:
    """Replays letters as the one identity that may write their source topics. Blocking; nothing stays open."""

    def __init__(self, identity: str, kafka: Mapping[str, str], codec: Codec) -> None:
        """`kafka` are librdkafka's bootstrap.servers and security for `identity`."""
        self._identity = identity
        self._kafka = dict(kafka)
        self._codec = codec

    def replay(self, place: Place, *, by: str, request_id: str) -> Replayed:
        """Publish the letter's record to the partition that it came from; returns when all replicas have it.

        Raises UnknownTopic, NoSuchLetter, NotReplayable; RegistryUnavailable, KafkaException, TimeoutError: ask again.
        """
        source = catalog.source_of(place.queue)
        if source.writer != self._identity:
            raise NotReplayable(f"{source.name} is written by {source.writer}, and by nobody else")
        letter = find_letter(CommittedReader(self._kafka, self._identity), self._codec, place)
        if letter is None:
            raise NoSuchLetter(f"there is no letter at {place}")
        self._check(letter, source.name)
        headers = [header for header in letter.headers if header[0] not in _OURS]
        headers += [(REPLAYED_FROM, str(place).encode()), (REPLAYED_BY, by.encode())]
        headers.append((REPLAY_REQUEST, request_id.encode()))
        return Replayed(
            letter=str(place),
            topic=source.name,
            partition=letter.source_partition,
            offset=self._publish(letter, headers),
            request_id=request_id,
        )

    def _check(self, letter: Letter, source: str) -> None:
        """What would come straight back is not sent."""
        if letter.source_topic != source:
            raise NotReplayable(f"it names {letter.source_topic} as its source, but lies in {letter.place.queue}")
        if letter.source_offset < 0:
            raise NotReplayable("it was a timer of its reader, not a record; the reader has set the timer again")
        if letter.key is None:
            raise NotReplayable("it is poison: a null key")
        try:
            self._codec.decode(source, letter.value)
        except Poison as error:
            raise NotReplayable(f"it is poison: {error}") from error

    def _publish(self, letter: Letter, headers: list[tuple[str, bytes | None]]) -> int:
        """The new record's offset."""
        producer = Producer(
            {
                **self._kafka,
                "client.id": f"{self._identity}-replays",
                "acks": "all",
                "enable.idempotence": True,
                "message.max.bytes": RECORD_BYTES_MAX,
                "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            }
        )
        outcome: list[tuple[KafkaError | None, Any]] = []
        producer.produce(
            letter.source_topic,
            letter.value,
            letter.key,
            letter.source_partition,
            headers=headers,
            on_delivery=lambda error, message: outcome.append((error, message)),
        )
        if producer.flush(DELIVERY_TIMEOUT_S + 1) != 0 or not outcome:
            raise TimeoutError(f"{letter.source_topic} did not take the record in {DELIVERY_TIMEOUT_S:.0f} s")
        error, message = outcome[0]
        if error is not None:
            raise KafkaException(error)
        return int(message.offset())


_OURS = frozenset({REPLAYED_FROM, REPLAYED_BY, REPLAY_REQUEST})


def service_replayer(settings: Settings, codec: Codec) -> Replayer:
    """The replayer of a service."""
    kafka = {"bootstrap.servers": settings.kafka_bootstrap, **kafka_security(settings)}
    return Replayer(settings.service, kafka, codec)


def replay_route(replayer: Replayer) -> AdminRoute:
    """POST /dead_letter_replays on a service's admin port, for operators: 200 with Replayed, or a problem."""
    one_at_a_time = asyncio.Lock()

    async def handle(request: web.Request) -> web.StreamResponse:
        request_id = known_request_id(request.headers.get(REQUEST_ID_HEADER)) or new_request_id()
        try:
            wanted = msgspec.json.decode(await request.read(), type=ReplayRequest)
        except msgspec.DecodeError as error:
            return problem_response(400, "invalid_request", str(error), request_id)
        place = Place(wanted.queue, wanted.partition, wanted.offset)
        async with one_at_a_time:
            return await _answer(replayer, place, request[IDENTITY], request_id)

    return AdminRoute("POST", PATH, handle, OPERATORS)


async def _answer(replayer: Replayer, place: Place, by: str, request_id: str) -> web.Response:
    try:
        replayed = await asyncio.to_thread(replayer.replay, place, by=by, request_id=request_id)
    except (catalog.UnknownTopic, NoSuchLetter) as error:
        return problem_response(404, "not_found", str(error.args[0]), request_id)
    except NotReplayable as error:
        return problem_response(409, "not_replayable", str(error), request_id)
    except (RegistryUnavailable, KafkaException, TimeoutError) as error:
        logger().warning("dead letter not replayed", letter=str(place), **exception_fields(error))
        return problem_response(503, "unavailable", "the letter could not be replayed now: ask again", request_id)
    logger().warning("dead letter replayed", operator=by, **msgspec.structs.asdict(replayed))
    return web.Response(body=msgspec.json.encode(replayed), content_type="application/json")
