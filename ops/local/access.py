"""How a command on this machine reaches a stack's servers as one of its identities."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException

from ops.local import kafka
from ops.local.errors import StackError
from ops.local.layout import Home, Ports, StackConfig
from ops.local.probes import client_context
from topics.catalog import all_topics
from topics.codec import Codec
from topics.registry import Registry, RegistryUnavailable, find_ids
from topics.schemas import subjects


class Access:
    """One stack, for the commands that work on it."""

    def __init__(self, home: Home) -> None:
        """Raises StackError when no stack was ever started there."""
        config = home.read_config()
        if config is None:
            raise StackError(f"There is no stack in {home.root}.", "`payments up` starts one; --home names another.")
        self.home = home
        self.config: StackConfig = config
        self.ports = Ports(config.port_base)

    def kafka(self, identity: str) -> dict[str, str]:
        """librdkafka's bootstrap.servers and security."""
        return {
            "bootstrap.servers": kafka.bootstrap(self.config, self.ports),
            "security.protocol": "ssl",
            "ssl.ca.location": str(self.home.ca),
            "ssl.certificate.location": str(self.home.cert(identity)),
            "ssl.key.location": str(self.home.key(identity)),
        }

    def open_codec(self, identity: str, *names: str) -> Codec:
        """A codec that knows the ids of the topics `names` (of all without any). Raises RegistryUnavailable."""
        wanted = tuple(topic for topic in all_topics() if not names or topic.name in names)
        registry = Registry(f"https://127.0.0.1:{self.ports.schema_registry}", client_context(self.home, identity))
        try:
            ids = find_ids(registry, subjects(wanted))
        finally:
            registry.close()

        def fetch(schema_id: int) -> str | None:
            try:
                return registry.schema(schema_id)
            finally:
                registry.close()

        return Codec(ids, fetch)

    def post(self, port: int, path: str, identity: str, body: bytes, timeout_s: float) -> tuple[int, bytes] | None:
        """Status and body of a POST of JSON to a service; None when nobody answers there."""
        context = client_context(self.home, identity)
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=timeout_s)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


@contextmanager
def servers_answer() -> Iterator[None]:
    """Turns what a server that is away or refuses raises into a StackError."""
    try:
        yield
    except KafkaException as error:
        raise StackError(f"Kafka: {error.args[0].str()}.", "`payments status` shows whether it runs.") from error
    except (RegistryUnavailable, TimeoutError) as error:
        raise StackError(f"{error}.", "`payments status` shows what runs.") from error
