"""Prometheus metrics of lanes, in the registry that the app was given."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LABELS = ("agent", "partition")
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)


class EngineMetrics:
    """What the engine counts and measures, once per registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        target = registry if registry is not None else CollectorRegistry()
        self.records = Counter("lane_records_total", "Records handled to completion", _LABELS, registry=target)
        self.batch = Histogram(
            "lane_batch_records", "Records per handler call", _LABELS, buckets=_BATCH, registry=target
        )
        self.commit_seconds = Histogram(
            "lane_commit_seconds", "Duration of committed transactions", _LABELS, buckets=_LATENCY_S, registry=target
        )
        self.aborts = Counter("lane_aborts_total", "Transactions that were aborted", _LABELS, registry=target)
        self.dead_letters = Counter("lane_dead_letters_total", "Records given up to a DLQ", _LABELS, registry=target)
        self.lag = Gauge("lane_lag_records", "Records behind the ends of the inputs", _LABELS, registry=target)
        self.timers_overdue_seconds = Gauge(
            "lane_timers_overdue_seconds", "How long the next timer has been due", _LABELS, registry=target
        )
        self.timers_halted = Gauge(
            "lane_timers_halted", "1 while host and broker clocks differ too much", _LABELS, registry=target
        )
        self.restored = Counter("lane_restored_records_total", "Changelog records restored", _LABELS, registry=target)

    def lane(self, agent: str, partition: int) -> LaneMetrics:
        """The metrics of one lane."""
        return LaneMetrics(self, agent, str(partition))


class LaneMetrics:
    """The metrics of one lane, labels bound once."""

    def __init__(self, metrics: EngineMetrics, *labels: str) -> None:
        self.records = metrics.records.labels(*labels)
        self.batch = metrics.batch.labels(*labels)
        self.commit_seconds = metrics.commit_seconds.labels(*labels)
        self.aborts = metrics.aborts.labels(*labels)
        self.dead_letters = metrics.dead_letters.labels(*labels)
        self.lag = metrics.lag.labels(*labels)
        self.timers_overdue_seconds = metrics.timers_overdue_seconds.labels(*labels)
        self.timers_halted = metrics.timers_halted.labels(*labels)
        self.restored = metrics.restored.labels(*labels)
