"""Builds a service's Faust app: identity, connection, codec and dead letters, the same for every worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from ops.runtime.clock import Clock
from ops.runtime.settings import Settings
from streams.domain.envelope import Value
from streams.exactly_once.agent import DeadLetter
from streams.exactly_once.app import App
from streams.exactly_once.records import Input, Output
from topics import catalog
from topics.codec import Codec


def new_app(settings: Settings, codec: Codec, clock: Clock, registry: CollectorRegistry) -> App:
    """The app of the service that `settings` name; its agents are yet to be declared.

    App id, consumer group, changelog prefix and prefix of transactional ids are all the service's name.
    """
    return App(
        settings.service,
        kafka=settings.kafka_bootstrap,
        tls={"ca": str(settings.tls_ca), "cert": str(settings.tls_cert), "key": str(settings.tls_key)},
        state_dir=settings.state_dir,
        instance_id=f"{settings.service}-{settings.instance}",
        dead_letters=lambda topic: dead_letter_output(settings.service, topic, codec),
        clock_ms=lambda: clock.now_us() // 1000,
        metrics=registry,
    )


def read(topic: str, codec: Codec) -> Input:
    """An agent's input; values are codec.Message."""
    return Input(topic, codec.decoder(topic))


def read_values(topic: str, codec: Codec, kinds: Mapping[str, type[Value]]) -> Input:
    """An agent's input; values are of these kinds, by the names of their records, and None for other records."""
    return Input(topic, codec.value_decoder(topic, kinds))


def write(topic: str, codec: Codec) -> Output:
    """An agent's output; it takes codec.Message values."""
    return Output(topic, codec.encoder(topic))


def dead_letter_output(service: str, topic: str, codec: Codec) -> Output:
    """Where `service` puts records of `topic` that it cannot handle."""
    queue = catalog.dead_letter_topic(topic, service)
    encode = codec.record_encoder(queue, "DeadLetter")
    return Output(queue, lambda letter: encode(_fields(letter)))


def _fields(letter: DeadLetter) -> Mapping[str, Any]:
    fields: dict[str, Any] = {name: getattr(letter, name) for name in DeadLetter.__slots__}
    fields["headers"] = [{"key": key, "value": value} for key, value in letter.headers]
    return fields
