"""Standbys: warm copies of the tables of lanes that other workers own, so that a takeover has little left to restore.

One thread per worker tails the changelogs through one read_committed consumer: only committed data, with its offset in
the same write batch. A standby never becomes a lane by itself; when its lane is assigned here, its store is closed and
opened again by the lane's own restore, which checks and completes it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from streams.exactly_once.clients import Clients
from streams.exactly_once.lane import Partition
from streams.exactly_once.store import LaneStore
from streams.exactly_once.table_spec import TableSpec

log = structlog.get_logger(__name__)

LaneKey = tuple[str, int]  # (agent, partition)

FETCH_MAX = 5_000
POLL_S = 0.5
_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)


@dataclass(slots=True)
class _Copy:
    """One lane's copy: its store, and the table behind each of its changelogs."""

    store: LaneStore
    tables: Mapping[str, TableSpec]
    partition: int


class Standbys:
    """Start once per worker; `keep` may be called from any thread."""

    def __init__(self, consumer_config: Mapping[str, object], state_dir: Path, clients: Clients) -> None:
        self._consumer = clients.consumer(
            {
                **consumer_config,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.queue.backoff.ms": 5,
                "queued.max.messages.kbytes": 4_096,
            }
        )
        self._state_dir = state_dir
        self._clients = clients
        self._copies: dict[LaneKey, _Copy] = {}
        self._by_source: dict[Partition, LaneKey] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="standbys", daemon=True)

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close every copy and end the thread."""
        self._stopping = True
        self._thread.join()
        self._consumer.close()

    def keep(self, wanted: Mapping[LaneKey, Mapping[str, TableSpec]]) -> threading.Event:
        """Keep copies of these lanes (tables by changelog) and of no others; the event is set when that is so."""
        done = threading.Event()

        def change() -> None:
            for key in [key for key in self._copies if key not in wanted]:
                self._close(key)
            for key, tables in wanted.items():
                if key not in self._copies:
                    self._open(key, tables)
            done.set()

        self._commands.append(change)
        return done

    def _run(self) -> None:
        try:
            while not self._stopping:
                while self._commands:
                    self._commands.popleft()()
                self._fetch()
        except Exception:
            log.exception("standbys stopped; takeovers will restore in full")
        finally:
            for key in list(self._copies):
                self._close(key)

    def _open(self, key: LaneKey, tables: Mapping[str, TableSpec]) -> None:
        agent, partition = key
        store = self._clients.store(self._state_dir / agent / str(partition))
        self._copies[key] = _Copy(store, tables, partition)
        self._by_source.update({(changelog, partition): key for changelog in tables})
        self._assign(self._copies[key])

    def _close(self, key: LaneKey) -> None:
        copy = self._copies.pop(key)
        self._consumer.incremental_unassign([TopicPartition(changelog, copy.partition) for changelog in copy.tables])
        self._by_source = {source: owner for source, owner in self._by_source.items() if owner != key}
        copy.store.close()

    def _assign(self, copy: _Copy) -> None:
        self._consumer.incremental_assign(
            [
                TopicPartition(changelog, copy.partition, _next_offset(copy.store, changelog))
                for changelog in copy.tables
            ]
        )

    def _fetch(self) -> None:
        first = self._consumer.poll(POLL_S)
        if first is None:
            return
        batches: dict[Partition, list[Message]] = {}
        for message in (first, *self._consumer.consume(FETCH_MAX, 0)):
            source = (message.topic(), message.partition())
            error = message.error()
            if error is None:
                batches.setdefault(source, []).append(message)
            elif error.code() in _GONE:
                self._begin_anew(source)
            else:
                log.warning("standby fetch error", code=error.name(), error=error.str())
        for source, messages in batches.items():
            self._apply(source, messages)

    def _apply(self, source: Partition, messages: list[Message]) -> None:
        key = self._by_source.get(source)
        if key is None:
            return
        copy, changelog = self._copies[key], source[0]
        records = [(message.key(), message.value()) for message in messages]
        copy.store.restore(copy.tables[changelog], records, {changelog: messages[-1].offset()})

    def _begin_anew(self, source: Partition) -> None:
        """The changelog has no such offset: the copy is of another history."""
        key = self._by_source.get(source)
        if key is None:
            return
        copy = self._copies[key]
        log.warning("standby is not of this changelog, copying anew", changelog=source[0], partition=source[1])
        self._consumer.incremental_unassign([TopicPartition(changelog, copy.partition) for changelog in copy.tables])
        copy.store.set_aside()
        self._assign(copy)


def _next_offset(store: LaneStore, changelog: str) -> int:
    applied = store.offset(changelog)
    return OFFSET_BEGINNING if applied is None else applied + 1
