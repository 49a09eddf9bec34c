"""The catalogue: one frozen entry per topic. Creation, ACLs, codec, documentation and tests read it.

Data first: to change a topic, change its line in TOPICS or CHANGELOGS and run `payments topics diff`. One writer per
topic, because Kafka's ACLs cannot see record types. The steps in the comments are those of the life of a payment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

BY_PAYMENT = 6  # partitions of every topic that is keyed by payment_id: co-partitioned, so all have the same number
BY_OTHERS = 3  # partitions of the others; the topics keyed by merchant are co-partitioned too

MIB = 1 << 20
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
FOREVER_MS = -1  # Kafka's word for it
COMPACTED = 0  # no retention time: the newest value of each key stays

FAUST_APPS = ("payment-worker", "records-worker", "provider-gateway", "batch-processor", "webhook-dispatcher")
CLIENTS = ("payment-api", "internal-producer")  # they write or read topics without being Faust apps
READS_EVERYTHING = "auditor"
MESSAGE = "the same as the source"


class UnknownTopic(KeyError):  # noqa: N818 - an error by its base
    """The catalogue has no topic of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic: what travels in it, how it is kept, who may write it (one service) and who may read it."""

    name: str
    purpose: str
    key: str  # what the key says, for people; keys are UTF-8
    records: tuple[str, ...]  # names of the record schemas it may carry; empty: not Avro
    writer: str
    readers: tuple[str, ...]
    partitions: int
    retention_ms: int = 7 * DAY_MS  # or FOREVER_MS, or COMPACTED
    max_message_bytes: int = MIB
    has_dead_letters: bool = False  # its readers are lanes: each has a DLQ topic for it
    schemas_of: str = ""  # folder of avro/ that holds its records, where it is not the topic's own

    @property
    def schema_folder(self) -> str:
        """Folder below avro/ that holds the schemas of `records`."""
        return self.schemas_of or self.name

    def config(self) -> dict[str, str]:
        """The topic's settings in Kafka's own names, without the replication that depends on the cluster's size."""
        if self.retention_ms == COMPACTED:
            kept = {"cleanup.policy": "compact"}
        else:
            kept = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}
        return {
            **kept,
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",  # one clock, the brokers', that no producer can set
        }


@dataclass(frozen=True, slots=True)
class Changelog:
    """A Faust table of one app: its changelog is `<app>-<table>-changelog`, written and read by that app only."""

    app: str
    table: str
    partitions: int  # of the topics whose lanes own the rows
    records: tuple[str, ...] = ()  # empty: rows are private to the app, in an encoding of its own


TOPICS: tuple[Topic, ...] = (
    # Steps 1 and 5: commands and what the world answered, all decided by the `payments` agent
    Topic(
        name="payments.commands",
        purpose="Commands of merchants and their customers (steps 1 and 5)",
        key="payment_id",
        records=("CreatePayment", "ConfirmPayment", "CancelPayment", "RefundPayment"),
        writer="payment-api",
        readers=("payment-worker",),
        partitions=BY_PAYMENT,
        has_dead_letters=True,
    ),
    Topic(
        name="payments.intake",
        purpose="Payments created by internal producers (step 1)",
        key="payment_id",
        records=("CreatePayment",),
        schemas_of="payments.commands",
        writer="internal-producer",
        readers=("payment-worker",),
        partitions=BY_PAYMENT,
        has_dead_letters=True,
    ),
    Topic(
        name="provider.outcomes",
        purpose="What the provider did (steps 6 and 8)",
        key="payment_id",
        records=("AuthorizationOutcome", "VoidOutcome", "RefundOutcome", "SettlementOutcome", "AttemptFailed"),
        writer="provider-gateway",
        readers=("payment-worker",),
        partitions=BY_PAYMENT,
        has_dead_letters=True,
    ),
    Topic(
        name="settlement.closings",
        purpose="Closing of a settlement day, to every partition of payments (step 8)",
        key="close:<date>:<partition>, sent to that partition",
        records=("CloseSettlementDay",),
        writer="batch-processor",
        readers=("payment-worker",),
        partitions=BY_PAYMENT,
        has_dead_letters=True,
    ),
    # Step 2: what was decided
    Topic(
        name="payments.events",
        purpose="One event per transition, with the snapshot after it; one record per command that made none (step 2)",
        key="payment_id",
        records=(
            "PaymentCreated",
            "PaymentProcessing",
            "PaymentAuthorized",
            "PaymentDeclined",
            "PaymentFailed",
            "PaymentCanceled",
            "PaymentExpired",
            "PaymentSettled",
            "PaymentRefunded",
            "PaymentUpdated",
            "CommandRejected",
            "CommandRepeated",
            "CommandFailed",
        ),
        writer="payment-worker",
        readers=("records-worker",),
        partitions=BY_PAYMENT,
        retention_ms=FOREVER_MS,
        has_dead_letters=True,
    ),
    Topic(
        name="provider.requests",
        purpose="Outbox to the provider (steps 5 and 6)",
        key="payment_id",
        records=("AuthorizeRequest", "VoidRequest", "RefundRequest"),
        writer="payment-worker",
        readers=("provider-gateway",),
        partitions=BY_PAYMENT,
        has_dead_letters=True,
    ),
    # Step 8: settlement
    Topic(
        name="settlement.entries",
        purpose="What joins and leaves a merchant's settlement day, its results, and the barriers that end it (step 8)",
        key="<merchant_id>:<currency>; barriers go to every partition",
        records=("EntryAdded", "EntryRemoved", "EntrySettled", "EntryFailed", "DayBarrier"),
        writer="payment-worker",
        readers=("batch-processor",),
        partitions=BY_OTHERS,
        has_dead_letters=True,
    ),
    Topic(
        name="settlement.requests",
        purpose="Chunks of a closed day to submit to the provider (step 8)",
        key="<batch_id>:<chunk>",
        records=("SettleChunkRequest",),
        writer="batch-processor",
        readers=("provider-gateway",),
        partitions=BY_OTHERS,
        has_dead_letters=True,
    ),
    Topic(
        name="settlement.events",
        purpose="Progress of batches and runs (step 8)",
        key="<merchant_id>:<currency>; of a day: its date",
        records=("ChunkClosed", "BatchCompleted", "DayClosed"),
        writer="batch-processor",
        readers=("records-worker",),
        partitions=BY_OTHERS,
        retention_ms=FOREVER_MS,
        has_dead_letters=True,
    ),
    # Step 4: replies
    Topic(
        name="payments.replies",
        purpose="Outcomes for the API instances that wait, after they were recorded (step 4)",
        key="payment_id, sent to the waiting instance's partition",
        records=("CommandReply",),
        writer="records-worker",
        readers=("payment-api",),
        partitions=BY_OTHERS,
        retention_ms=HOUR_MS,  # nobody waits longer than 30 s
    ),
    # Step 7: feed and webhooks
    Topic(
        name="merchants.inbox",
        purpose="What a merchant may see, after it was recorded (step 7)",
        key="merchant_id",
        records=("MerchantEvent",),
        writer="records-worker",
        readers=("webhook-dispatcher",),
        partitions=BY_OTHERS,
        has_dead_letters=True,
    ),
    Topic(
        name="merchants.events",
        purpose="The same with its gap-free place in the merchant's feed (step 7)",
        key="merchant_id",
        records=("FeedEvent",),
        writer="webhook-dispatcher",
        readers=("webhook-dispatcher", "records-worker"),
        partitions=BY_OTHERS,
        retention_ms=FOREVER_MS,
        has_dead_letters=True,
    ),
    Topic(
        name="webhooks.commands",
        purpose="Test, redeliver and replay of webhooks (step 7)",
        key="merchant_id",
        records=("TestEndpoint", "RedeliverDelivery", "ReplayEndpoint"),
        writer="payment-api",
        readers=("webhook-dispatcher",),
        partitions=BY_OTHERS,
        has_dead_letters=True,
    ),
    Topic(
        name="webhooks.outcomes",
        purpose="Attempts to deliver, endpoints disabled (step 7)",
        key="merchant_id",
        records=("DeliveryAttempted", "EndpointDisabled"),
        writer="webhook-dispatcher",
        readers=("records-worker",),
        partitions=BY_OTHERS,
        has_dead_letters=True,
    ),
    Topic(
        name="audit.log",
        purpose="Acts of administration and of moving money",
        key="id of what was acted on",
        records=("AuditEntry",),
        writer="payment-api",
        readers=(),
        partitions=BY_OTHERS,
        retention_ms=FOREVER_MS,
    ),
)

CHANGELOGS: tuple[Changelog, ...] = (
    # `<agent>-timers`: durable timers and source offsets of an agent's lanes
    Changelog("payment-worker", "payments", BY_PAYMENT, ("PaymentRow",)),
    Changelog("payment-worker", "days", BY_PAYMENT),
    Changelog("payment-worker", "payments-timers", BY_PAYMENT),
    Changelog("provider-gateway", "settlement_submissions-timers", BY_OTHERS),
    Changelog("batch-processor", "entries", BY_OTHERS),
    Changelog("batch-processor", "windows", BY_OTHERS),
    Changelog("batch-processor", "batches", BY_OTHERS),
    Changelog("batch-processor", "days", BY_OTHERS),
    Changelog("batch-processor", "settlement-timers", BY_OTHERS),
    Changelog("webhook-dispatcher", "feed", BY_OTHERS),
    Changelog("webhook-dispatcher", "feed-timers", BY_OTHERS),
    Changelog("webhook-dispatcher", "deliveries", BY_OTHERS),
    Changelog("webhook-dispatcher", "webhooks-timers", BY_OTHERS),
)


def dead_letter_topic(topic: str, service: str) -> str:
    """Where `service`, a reader of `topic`, puts records of it that it cannot handle.

    The first reader's is `<topic>.dlq`; a further one has `<topic>.<service>.dlq`, so that each has one writer.
    Raises UnknownTopic, or ValueError when `service` reads no such topic through lanes.
    """
    entry = next((entry for entry in TOPICS if entry.name == topic), None)
    if entry is None:
        raise UnknownTopic(f"the catalogue has no topic {topic}")
    if not entry.has_dead_letters or service not in entry.readers:
        raise ValueError(f"{service} has no dead letters of {topic}")
    return f"{topic}.dlq" if entry.readers[0] == service else f"{topic}.{service}.dlq"


def source_of(queue: str) -> Topic:
    """The topic whose records a reader puts into the dead-letter topic `queue`. Raises UnknownTopic."""
    for topic in TOPICS:
        if topic.has_dead_letters and queue in {dead_letter_topic(topic.name, reader) for reader in topic.readers}:
            return topic
    raise UnknownTopic(f"the catalogue has no dead-letter topic {queue}")


def changelog_topic(app: str, table: str) -> str:
    """Name of the changelog of an app's table, as Faust makes it."""
    return f"{app}-{table}-changelog"


@cache
def all_topics() -> tuple[Topic, ...]:
    """Every topic of the platform: TOPICS, their dead letters and the changelogs."""
    dead_letters = [
        Topic(
            name=dead_letter_topic(topic.name, reader),
            purpose=f"Records of {topic.name} that {reader} could not handle",
            key=MESSAGE,
            records=("DeadLetter",),
            schemas_of="dead-letters",
            writer=reader,
            readers=(topic.writer,),  # it alone may publish them again: topics.replays
            partitions=BY_OTHERS,
            retention_ms=30 * DAY_MS,
            max_message_bytes=2 * MIB,  # holds a whole record of the source and what was wrong with it
        )
        for topic in TOPICS
        if topic.has_dead_letters
        for reader in topic.readers
    ]
    changelogs = [
        Topic(
            name=changelog_topic(log.app, log.table),
            purpose=f"Rows of the table `{log.table}`",
            key="the row's key",
            records=log.records,
            writer=log.app,
            readers=(log.app,),
            partitions=log.partitions,
            retention_ms=COMPACTED,
        )
        for log in CHANGELOGS
    ]
    return (*TOPICS, *dead_letters, *changelogs)


def find(name: str) -> Topic:
    """The topic of this name. Raises UnknownTopic."""
    try:
        return _by_name()[name]
    except KeyError:
        raise UnknownTopic(f"the catalogue has no topic {name}") from None


@cache
def _by_name() -> dict[str, Topic]:
    return {topic.name: topic for topic in all_topics()}
