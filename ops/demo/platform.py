"""The running platform as the demo sees it, from the status document: addresses, a merchant with keys, certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from ops.local.errors import StackError
from ops.local.layout import Home, Ports
from ops.local.record_tables import cassandra_address
from ops.local.status import status_document
from tables.records.session import CassandraAddress


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What a merchant, a browser, an operator and an auditor need to reach it."""

    urls: dict[str, str]
    merchant_id: str
    secret_key: str
    publishable_key: str
    public: ssl.SSLContext  # trusts the stack's authority, shows no certificate
    operator: ssl.SSLContext
    auditor: ssl.SSLContext
    kafka_auditor: dict[str, str]  # librdkafka's settings
    cassandra_auditor: CassandraAddress
    keyspace: str


def find_platform(home: Home) -> Platform:
    """The platform of this home. Raises StackError when it is not ready."""
    status = status_document(home)
    config = home.read_config()
    if not status.ready or not status.merchants or config is None:
        raise StackError(f"The stack in {home.root} is not ready.", "`payments up` starts it, `payments status` tells.")
    merchant = status.merchants[0]
    return Platform(
        urls=status.urls,
        merchant_id=merchant["merchant_id"],
        secret_key=merchant["secret_key"],
        publishable_key=merchant["publishable_key"],
        public=ssl.create_default_context(cafile=str(home.ca)),
        operator=_client_context(home, "operator"),
        auditor=_client_context(home, "auditor"),
        kafka_auditor={
            "bootstrap.servers": status.kafka["bootstrap"],
            "security.protocol": "ssl",
            "ssl.ca.location": str(home.ca),
            "ssl.certificate.location": str(home.cert("auditor")),
            "ssl.key.location": str(home.key("auditor")),
        },
        cassandra_auditor=cassandra_address(home, config, Ports(config.port_base), "auditor"),
        keyspace=status.cassandra["keyspace"],
    )


def _client_context(home: Home, identity: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(home.ca))
    context.load_cert_chain(home.cert(identity), home.key(identity))
    return context
