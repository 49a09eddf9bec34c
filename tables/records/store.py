"""All records over one session: what a service holds."""

from __future__ import annotations

from pathlib import Path

from ops.runtime.settings import Settings
from tables.records.audit import AuditRecords
from tables.records.data_keys import DataKeyRecords
from tables.records.deliveries import DeliveryRecords
from tables.records.endpoints import EndpointRecords
from tables.records.feed import FeedRecords
from tables.records.merchants import MerchantRecords
from tables.records.payments import PaymentRecords
from tables.records.session import CassandraAddress, RecordsSession
from tables.records.settlement import SettlementRecords


class RecordStore:
    """The aggregates of the records, each with its own tables.

    Every method raises RecordsUnavailable while Cassandra is away.
    """

    def __init__(self, session: RecordsSession) -> None:
        self.session = session
        self.payments = PaymentRecords(session)
        self.settlement = SettlementRecords(session, self.payments)
        self.merchants = MerchantRecords(session)
        self.endpoints = EndpointRecords(session)
        self.data_keys = DataKeyRecords(session)
        self.feed = FeedRecords(session)
        self.deliveries = DeliveryRecords(session)
        self.audit = AuditRecords(session)

    async def close(self) -> None:
        """Let go of the connections."""
        await self.session.close()


def cassandra_address(settings: Settings, *, cert: Path | None = None, key: Path | None = None) -> CassandraAddress:
    """Where Cassandra is, and as whom to go there (default: as the service itself)."""
    return CassandraAddress(
        contact_points=settings.cassandra_contact_points,
        port=settings.cassandra_port,
        datacenter=settings.cassandra_datacenter,
        tls_ca=settings.tls_ca,
        tls_cert=cert or settings.tls_cert,
        tls_key=key or settings.tls_key,
    )


async def open_store(settings: Settings) -> RecordStore:
    """A connected store. Raises RecordsUnavailable when no contact point answers."""
    session = await RecordsSession.connect(cassandra_address(settings), settings.cassandra_keyspace)
    return RecordStore(session)
