"""Who leads a partition and who coordinates a group or a transactional id, with a connection to each that is needed."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest, MetadataRequest

from streams.exactly_once.producer.connection import CLIENT_ID, BrokerConnection

BACKOFF_S = 0.05  # between questions to brokers that have no answer yet
QUESTION_S = 2.0  # for one broker to answer what any of them could
TRANSACTION_VERSION = 2  # of the cluster's feature `transaction.version`: KIP-890 in full

_ApiVersions = ApiVersionsRequest[3]
_Metadata = MetadataRequest[12]
_FindCoordinator = FindCoordinatorRequest[4]


class Coordinator(IntEnum):
    """What is coordinated, as FindCoordinator numbers it."""

    GROUP = 0
    TRANSACTION = 1


class Brokers:
    """A cluster as one producer sees it. Deadlines are on the monotonic clock, in seconds.

    Raises KafkaException where brokers refuse, or none answers by the deadline.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """`config` has librdkafka's names: bootstrap.servers, security.protocol (plaintext or ssl), and PEM files."""
        self._bootstrap = [_address(server) for server in str(config["bootstrap.servers"]).split(",")]
        self._tls = _tls_files(config)
        self._addresses: dict[int, tuple[str, int]] = {}  # by node
        self._connections: dict[int, BrokerConnection] = {}
        self._leaders: dict[str, list[int]] = {}  # of each topic, by partition
        self._coordinators: dict[tuple[Coordinator, str], int] = {}

    def leaders(self, topic: str, deadline_s: float) -> list[int]:
        """The node that leads each partition of a topic."""
        while (leaders := self._leaders.get(topic)) is None:
            request = _Metadata(
                topics=[_Metadata.MetadataRequestTopic(name=topic, topic_id=None)], allow_auto_topic_creation=False
            )
            metadata = self._ask_any(request, deadline_s)
            self._addresses.update((broker.node_id, (broker.host, broker.port)) for broker in metadata.brokers)
            (found,) = metadata.topics
            by_partition = {entry.partition_index: entry.leader_id for entry in found.partitions}
            if not found.error_code and min(by_partition.values(), default=-1) >= 0:
                self._leaders[topic] = [by_partition[number] for number in range(len(by_partition))]
            else:
                _raise_if_late(found.error_code or KafkaError.LEADER_NOT_AVAILABLE, f"topic {topic}", deadline_s)
                time.sleep(BACKOFF_S)
        return leaders

    def coordinator(self, kind: Coordinator, key: str, deadline_s: float) -> int:
        """The node that coordinates a group or a transactional id."""
        while (node := self._coordinators.get((kind, key))) is None:
            request = _FindCoordinator(key_type=kind, coordinator_keys=[key])
            (found,) = self._ask_any(request, deadline_s).coordinators
            if not found.error_code:
                self._addresses[found.node_id] = (found.host, found.port)
                self._coordinators[kind, key] = found.node_id
            else:
                _raise_if_late(found.error_code, f"coordinator of {key}", deadline_s)
                time.sleep(BACKOFF_S)
        return node

    def connection(self, node: int, deadline_s: float) -> BrokerConnection:
        """The connection to a node that was told of. Raises OSError when there is none to be had."""
        connection = self._connections.get(node)
        if connection is None:
            connection = self._connections[node] = self._open(*self._addresses[node], deadline_s)
        return connection

    def refresh(self) -> None:
        """Before a transaction: let go of connections that the other side has closed, as brokers do with idle ones."""
        for node in [node for node, connection in self._connections.items() if not connection.is_alive]:
            self.drop(node)

    def drop(self, node: int) -> None:
        """Close the connection to a node, and ask again who leads and coordinates."""
        connection = self._connections.pop(node, None)
        if connection is not None:
            connection.close()
        self.forget()

    def forget(self) -> None:
        """Ask again who leads and coordinates."""
        self._leaders.clear()
        self._coordinators.clear()

    def close(self) -> None:
        """Close every connection."""
        while self._connections:
            self._connections.popitem()[1].close()

    def _ask_any(self, request: Any, deadline_s: float) -> Any:
        while True:
            for node, connection in list(self._connections.items()):
                try:
                    return connection.ask(request, _soon(deadline_s))
                except OSError:
                    self.drop(node)
            reason = "no address"
            for host, port in (*self._addresses.values(), *self._bootstrap):
                try:
                    connection = self._open(host, port, _soon(deadline_s))
                    try:
                        return connection.ask(request, _soon(deadline_s))
                    finally:
                        connection.close()
                except OSError as error:
                    reason = f"{host}:{port}: {error}"
            _raise_if_late(KafkaError._TRANSPORT, reason, deadline_s)
            time.sleep(BACKOFF_S)

    def _open(self, host: str, port: int, deadline_s: float) -> BrokerConnection:
        connection = BrokerConnection(host, port, _tls_context(self._tls), deadline_s)
        try:
            request = _ApiVersions(client_software_name=CLIENT_ID, client_software_version="1")
            answer = connection.ask(request, deadline_s)
            features = {feature.name: feature.max_version_level for feature in answer.finalized_features or ()}
            if features.get("transaction.version", 0) < TRANSACTION_VERSION:
                text = "the brokers do not speak KIP-890: kafka-features.sh upgrade --feature transaction.version=2"
                raise KafkaException(KafkaError(KafkaError._UNSUPPORTED_FEATURE, text, fatal=True))
        except BaseException:
            connection.close()
            raise
        return connection


def _soon(deadline_s: float) -> float:
    return min(deadline_s, time.monotonic() + QUESTION_S)


def _raise_if_late(code: int, what: str, deadline_s: float) -> None:
    """Raises KafkaException when there is no time to wait and ask again."""
    if time.monotonic() + BACKOFF_S > deadline_s:
        raise KafkaException(KafkaError(code, what, retriable=True))


def _address(server: str) -> tuple[str, int]:
    host, _, port = server.strip().rpartition(":")
    return host.strip("[]"), int(port)


def _tls_files(config: Mapping[str, Any]) -> tuple[str, str, str] | None:
    protocol = str(config.get("security.protocol", "plaintext")).lower()
    if protocol == "plaintext":
        return None
    if protocol != "ssl":
        raise ValueError(f"security.protocol {protocol}: lanes speak plaintext or ssl")
    ca, certificate, key = (str(config[f"ssl.{name}.location"]) for name in ("ca", "certificate", "key"))
    return ca, certificate, key


def _tls_context(files: tuple[str, str, str] | None) -> ssl.SSLContext | None:
    """Read anew for each connection: certificates are renewed in place."""
    if files is None:
        return None
    ca, certificate, key = files
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    return context
