"""Step 4, Reply: hears the outcome of each command and wakes the request that waits for it.

This instance reads one partition of `payments.replies`, the one that its commands name. It stands at the partition's
end before the API sends its first command, so no reply to any of them can be missed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from api.admission import Backlog
from ops.runtime.logs import exception_fields, logger
from ops.runtime.settings import Settings
from ops.runtime.tls import kafka_security
from streams.domain.payment import Payment

TOPIC = "payments.replies"
START_TIMEOUT_S = 10.0
ATTACH_TIMEOUT_S = 2.0
ATTACH_PAUSE_S = 0.5
BATCH_MAX = 500
POLL_S = 0.5  # also the longest time that `stop` waits for the thread


class CommandReply(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a command; `outcome` is accepted, rejected, repeated or failed."""

    id: str
    command_id: str
    correlation_id: str
    payment_id: str
    outcome: str
    event: str
    code: str | None = None
    status_code: int | None = None
    revision: int | None = None
    payment_status: str | None = None
    payment: Payment | None = None


class Waiting:
    """One request's replies, in the order in which they were recorded. One task waits, on the loop that hears.

    A context: on leaving it nothing more is heard.
    """

    def __init__(self, leave: Callable[[], object] | None = None) -> None:
        self._leave = leave
        self._heard: deque[CommandReply | None] = deque()
        self._wake: asyncio.Future[None] | None = None  # of the task that waits now
        self.is_patient = False  # waits for what comes after the first reply; a server that ends does not

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        if self._leave is not None:
            self._leave()

    def hear(self, reply: CommandReply | None) -> None:
        self._heard.append(reply)
        if self._wake is not None:
            _finish(self._wake)

    def give_up(self) -> None:
        """Ends the wait as if its time were up."""
        self.hear(None)

    def drain(self) -> None:
        """Ends the wait if it is a patient one."""
        if self.is_patient:
            self.give_up()

    async def next(self, timeout_s: float) -> CommandReply | None:
        """The next reply, or None when none comes within `timeout_s` seconds."""
        if not self._heard and timeout_s > 0.0:
            loop = asyncio.get_running_loop()
            self._wake = loop.create_future()  # a queue and a time-out of asyncio's cost a request twice as much
            timer = loop.call_later(timeout_s, _finish, self._wake)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None
        return self._heard.popleft() if self._heard else None


def _finish(wake: asyncio.Future[None]) -> None:
    if not wake.done():
        wake.set_result(None)


class ReplyBoard:
    """The requests of this process that wait, by correlation id. Only the event loop's thread touches it."""

    def __init__(self, backlog: Backlog) -> None:
        self._waiting: dict[str, Waiting] = {}
        self.backlog = backlog
        self.is_listening = False  # until then no command may be sent: its reply could be missed
        self.is_draining = False  # the process ends: nobody waits for more than its first reply

    def drain(self) -> None:
        """Lets every request that waits for an outcome (`Prefer: wait`) be answered with what is known now."""
        self.is_draining = True
        for waiting in self._waiting.values():
            waiting.drain()

    def waiting(self, correlation_id: str) -> Waiting:
        """Hears every reply to `correlation_id` from now on; begin before the command is sent."""
        waiting = self._waiting[correlation_id] = Waiting(partial(self._waiting.pop, correlation_id))
        return waiting

    def deliver(self, replies: list[CommandReply]) -> None:
        """Hands each reply to its request; a request that has gone (answered 202, client left) needs none."""
        for reply in replies:
            self.backlog.answered(reply.correlation_id)
            waiting = self._waiting.get(reply.correlation_id)
            if waiting is not None:
                waiting.hear(reply)

    def __len__(self) -> int:
        return len(self._waiting)


class ReplyReader:
    """Reads this instance's partition on a thread of its own and delivers to the board. A component."""

    def __init__(
        self,
        settings: Settings,
        decode: Callable[[bytes], CommandReply],
        board: ReplyBoard,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._decode = decode
        self._board = board
        self._fail = fail
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    async def start(self) -> None:
        """Returns once the reader stands at the partition's end, or without: while Kafka is away it keeps trying."""
        attached = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop, attached), name="replies", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await attached.wait()
        except TimeoutError:
            logger().warning("replies cannot be read yet")

    async def check(self) -> None:
        """Raises ConnectionError until the reader stands at the partition's end."""
        if not self._board.is_listening:
            raise ConnectionError("payments.replies cannot be read yet")

    async def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _run(self, loop: asyncio.AbstractEventLoop, attached: asyncio.Event) -> None:
        """The thread: attaches, then reads until it is stopped or something breaks for good."""
        consumer = self._made()
        try:
            place = TopicPartition(TOPIC, self._settings.instance)
            while not self._stopping.is_set() and not self._stand_at_end(consumer, place):
                pass
            loop.call_soon_threadsafe(self._attached, attached)
            while not self._stopping.is_set():
                self._read(consumer, loop)
        except Exception as error:
            loop.call_soon_threadsafe(self._fail, error)
        finally:
            consumer.close()

    def _attached(self, attached: asyncio.Event) -> None:
        self._board.is_listening = True
        attached.set()

    def _made(self) -> Consumer:
        """A consumer without a group: nothing is ever committed, a reply matters only to who waits for it now."""
        partition = self._settings.instance
        return Consumer(
            {
                "bootstrap.servers": self._settings.kafka_bootstrap,
                **kafka_security(self._settings),
                "client.id": f"payment-api-{partition}-replies",
                "group.id": "payment-api",  # librdkafka wants one; nothing joins it and nothing is committed
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "latest",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": 16_384,
                "reconnect.backoff.max.ms": 1_000,
                "allow.auto.create.topics": False,
            },
            logger=logging.getLogger("librdkafka.replies"),
        )

    def _stand_at_end(self, consumer: Consumer, place: TopicPartition) -> bool:
        """Assigns the partition at its present end; False while Kafka does not say where that is."""
        try:
            _low, place.offset = consumer.get_watermark_offsets(place, timeout=ATTACH_TIMEOUT_S)
        except KafkaException as error:
            logger().warning("replies cannot be read yet", reason=error.args[0].name())
            self._stopping.wait(ATTACH_PAUSE_S)
            return False
        consumer.assign([place])
        return True

    def _read(self, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        """What has come, as soon as anything has (`consume` alone would wait for a whole batch, or the time-out)."""
        first = consumer.poll(POLL_S)
        if first is None:
            return
        messages = (first, *consumer.consume(BATCH_MAX, 0))
        replies = [reply for message in messages if (reply := self._decoded(message)) is not None]
        if replies:
            loop.call_soon_threadsafe(self._board.deliver, replies)

    def _decoded(self, message: object) -> CommandReply | None:
        """The reply in a message; None for what is no reply. Raises KafkaException for errors that do not pass."""
        error = message.error()  # type: ignore[attr-defined]
        if error is not None:
            if error.fatal() or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNKNOWN_PARTITION):
                raise KafkaException(error)
            logger().warning("replies delayed", reason=error.name())
            return None
        try:
            return self._decode(message.value())  # type: ignore[attr-defined]
        except Exception as failure:
            # Only records-worker may write here; what it cannot spell, nobody waits for.
            logger().error("reply not understood", offset=message.offset(), **exception_fields(failure))  # type: ignore[attr-defined]
            return None
