"""The worker processes: which components and agents each service has. `run` is their common entry point."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ops.runtime import service as runtime
from ops.runtime.admin import AdminRoute, admin_server
from ops.runtime.clock import SystemClock
from ops.runtime.encryption import DataKeys
from ops.runtime.secrets import read_secret_keys
from ops.runtime.service import Component, Service
from ops.runtime.settings import Settings
from ops.runtime.tls import kafka_security
from streams.agents import authorizations, feed, payments, settlement, settlement_submissions, webhooks
from streams.agents.records import Records
from streams.agents.replies import ReplyProducer
from streams.app import dead_letter_output, new_app, read, read_values, write
from streams.domain.retry import RetryPolicy
from streams.exactly_once.app import App
from streams.exactly_once.errors import LaneLost
from streams.provider.breaker import BreakingProvider
from streams.provider.configured import open_provider
from streams.settlement_runs import CLOSINGS, SettlementRuns
from streams.webhooks.bodies import Bodies
from streams.webhooks.client import WebhookClient
from streams.webhooks.directory import EndpointDirectory
from tables.deliveries import DELIVERIES
from tables.feed import FEED
from tables.payments import payments_table
from tables.records.store import RecordStore, open_store
from topics import catalog
from topics.codec import Codec
from topics.replays import replay_route, service_replayer
from topics.schema_ids import open_codec

BEHIND_THE_REPLY_S = 0.5
"""Commit interval of agents behind step 4, for whose transactions no client waits: fewer, larger transactions. Each
costs the brokers some CPU, whatever it carries."""

WHILE_A_CLIENT_WAITS_S = 0.008
"""Commit pause of the payments agent, between what was measured at 230 payments a second on two cores: with 6 ms Kafka
used 37 to 41 % of a core, with 10 ms 33 to 34; each took the lower p50 and p99 in turn (decision 0029)."""


class Worker:
    """What every worker is made of before its agents are declared: codec, app, settings, metrics."""

    def __init__(self, service: Service, codec: Codec) -> None:
        self.service = service
        self.settings: Settings = service.settings
        self.codec = codec
        self.clock = SystemClock()
        self.app: App = new_app(self.settings, codec, self.clock, service.registry)
        self._routes: list[AdminRoute] = [replay_route(service_replayer(self.settings, codec))]

    @classmethod
    async def open(cls, service: Service) -> Worker:
        """A worker whose codec knows every schema that it writes. Raises RegistryUnavailable."""
        return cls(service, await asyncio.to_thread(open_codec, service.settings))

    async def open_store(self) -> RecordStore:
        """The records, and whether they answer, in readiness."""
        store = await open_store(self.settings)

        async def answers() -> None:
            if not await store.session.ready():
                raise ConnectionError("no quorum")

        self.service.readiness.add("cassandra", answers)
        return store

    def kafka(self) -> dict[str, str]:
        """librdkafka's connection settings for producers beside the lanes."""
        return {"bootstrap.servers": self.settings.kafka_bootstrap, **kafka_security(self.settings)}

    def mount(self, route: AdminRoute) -> None:
        """Serve one more operation on the admin port."""
        self._routes.append(route)

    def components(self, *before: Component) -> Sequence[Component]:
        """What runs: `before`, the Faust app, and last the admin port, so that it stops first."""
        settings, service = self.settings, self.service
        app = FaustComponent(self.app, service)
        admin = admin_server(settings, service.registry, service.readiness, tuple(self._routes))
        return (*before, app, admin)


class FaustComponent:
    """A Faust app as a component: it fails the service when a lane cannot go on, or when Faust crashes."""

    def __init__(self, app: App, service: Service) -> None:
        self._app = app
        self._service = service
        service.readiness.add("lanes", self._lanes_run)

    async def start(self) -> None:
        """Join the group. Lanes start in the background; readiness tells when they run."""
        await self._app.start()
        self._service.spawn(self._watch(), "faust")

    async def stop(self) -> None:
        """Drain lanes, commit, leave the group. After a failure nothing may be committed: the process just ends."""
        if self._app.failure is None:
            await self._app.stop()

    async def _watch(self) -> None:
        await self._app.wait_until_stopped()
        if self._app.failure is not None:
            raise self._app.failure
        reason = self._app.crash_reason
        if reason is not None:
            raise reason

    async def _lanes_run(self) -> None:
        if not self._app.lanes.alive:
            raise LaneLost("the pump stands still")
        if not self._app.lanes.ready:
            raise ConnectionError("lanes are starting")


async def build_payment_worker(service: Service) -> Sequence[Component]:
    """Step 2, Decide."""
    worker = await Worker.open(service)
    codec = worker.codec
    outputs = payments.PaymentsOutputs(
        events=write("payments.events", codec),
        requests=write("provider.requests", codec),
        entries=write("settlement.entries", codec),
        given_up=dead_letter_output(service.settings.service, "provider.outcomes", codec),
    )
    handler = payments.Payments(
        payments_table(codec),
        outputs,
        partitions=catalog.find("payments.commands").partitions,
        entry_partitions=catalog.find("settlement.entries").partitions,
        intake_merchants=frozenset(service.settings.intake_merchants),
    )
    worker.app.decider(
        "payments",
        inputs=[read_values(topic, codec, kinds) for topic, kinds in payments.KINDS.items()],
        outputs=[outputs.events, outputs.requests, outputs.entries],
        tables=handler.tables,
        on_dead_letter=handler.dead_letter,
        commit_pause_s=WHILE_A_CLIENT_WAITS_S,
    )(handler)
    return worker.components()


async def build_records_worker(service: Service) -> Sequence[Component]:
    """Steps 3, 4 and 7: Record, Reply, Notify."""
    worker = await Worker.open(service)
    codec = worker.codec
    store = await worker.open_store()
    replies = ReplyProducer(worker.kafka(), codec.encoder("payments.replies"), registry=service.registry)
    inbox = write("merchants.inbox", codec)
    handler = Records(store, replies, inbox, registry=service.registry)
    # Three agents with one handler: a lane's inputs must have equally many partitions, and of a merchant's numbered
    # events each is a row of its own, whichever is written first (FeedRecords shows none behind a gap).
    worker.app.effector(
        "records", inputs=[read("payments.events", codec)], outputs=[inbox], commit_interval_s=BEHIND_THE_REPLY_S
    )(handler)
    by_merchant = ("settlement.events", "webhooks.outcomes")
    inputs = [read(topic, codec) for topic in by_merchant]
    worker.app.effector("merchant_records", inputs=inputs, outputs=[inbox], commit_interval_s=BEHIND_THE_REPLY_S)(
        handler
    )
    worker.app.effector(
        "feed_records", inputs=[read("merchants.events", codec)], ordered=False, commit_interval_s=BEHIND_THE_REPLY_S
    )(handler)
    return worker.components(Closing(store), replies)


async def build_provider_gateway(service: Service) -> Sequence[Component]:
    """Steps 6 and 8: Authorise, and submission of settlement chunks."""
    worker = await Worker.open(service)
    codec, settings = worker.codec, service.settings
    store = await worker.open_store()
    provider = BreakingProvider(open_provider(settings, service.registry), registry=service.registry)
    outcomes = write("provider.outcomes", codec)
    requests = read_values("provider.requests", codec, authorizations.KINDS)
    worker.app.effector("authorizations", inputs=[requests], outputs=[outcomes])(
        authorizations.authorizations(provider, outcomes, worker.clock, registry=service.registry)
    )
    submissions = settlement_submissions.SettlementSubmissions(
        provider, store.settlement, outcomes, worker.clock, policy=RetryPolicy(), registry=service.registry
    )
    chunks = read_values("settlement.requests", codec, settlement_submissions.KINDS)
    worker.app.effector("settlement_submissions", inputs=[chunks], outputs=[outcomes], timers=True)(submissions)
    service.readiness.add("provider", provider.check)
    return worker.components(Closing(store), provider)


async def build_batch_processor(service: Service) -> Sequence[Component]:
    """Step 8, Settle: windows, chunks, and the start of runs."""
    worker = await Worker.open(service)
    codec, settings = worker.codec, service.settings
    store = await worker.open_store()
    outputs = settlement.SettlementOutputs(
        requests=write("settlement.requests", codec), events=write("settlement.events", codec)
    )
    handler = settlement.Settlement(outputs, partitions=catalog.find("settlement.entries").partitions)
    worker.app.decider(
        "settlement",
        inputs=[read_values("settlement.entries", codec, settlement.KINDS)],
        outputs=[outputs.requests, outputs.events],
        tables=handler.tables,
        on_dead_letter=handler.dead_letter,
    )(handler)
    runs = SettlementRuns(
        worker.kafka(),
        write(CLOSINGS, codec),
        store.settlement,
        worker.clock,
        partitions=catalog.find(CLOSINGS).partitions,
        may_force=settings.mode == "test",
    )
    worker.mount(runs.route())
    return worker.components(Closing(store), runs)


async def build_webhook_dispatcher(service: Service) -> Sequence[Component]:
    """Step 7, Notify: the feed's order, and delivery."""
    worker = await Worker.open(service)
    codec, settings = worker.codec, service.settings
    store = await worker.open_store()
    events = write("merchants.events", codec)
    outcomes = write("webhooks.outcomes", codec)
    worker.app.decider(
        "feed",
        inputs=[read_values("merchants.inbox", codec, feed.KINDS)],
        outputs=[events],
        tables=[FEED],
        commit_interval_s=BEHIND_THE_REPLY_S,
    )(feed.feed(events))
    opener = DataKeys(read_secret_keys(settings.secrets_dir / "master.key"), store.data_keys, worker.clock)
    client = WebhookClient(settings.mode, worker.clock)
    directory = EndpointDirectory(store.endpoints, opener, worker.clock)
    handler = webhooks.Webhooks(
        directory,
        Bodies(directory, opener),
        client,
        outcomes,
        worker.clock,
        registry=service.registry,
    )
    worker.app.effector(
        "webhooks",
        inputs=[read_values(topic, codec, webhooks.KINDS) for topic in ("merchants.events", "webhooks.commands")],
        outputs=[outcomes],
        tables=[DELIVERIES],
        on_dead_letter=handler.rearm,
        commit_interval_s=BEHIND_THE_REPLY_S,
    )(handler)
    return worker.components(Closing(store), client)


class Closing:
    """A store as a component: opened before the agents were declared, closed after they have stopped."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    async def start(self) -> None:
        """It is open already."""

    async def stop(self) -> None:
        """Close its connections."""
        await self._store.close()


BUILDERS: dict[str, Callable[[Service], Awaitable[Sequence[Component]]]] = {
    "payment-worker": build_payment_worker,
    "records-worker": build_records_worker,
    "provider-gateway": build_provider_gateway,
    "batch-processor": build_batch_processor,
    "webhook-dispatcher": build_webhook_dispatcher,
}


def run(settings: Settings) -> int:
    """Run the worker that `settings` name until SIGTERM; returns the process's exit status."""
    return runtime.run(settings, BUILDERS[settings.service])
