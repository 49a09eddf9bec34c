"""Prometheus metrics of lanes. One registry per process, the client library's default."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ("agent", "partition")
_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)

_records = Counter("lane_records_total", "Records handled to completion", _LABELS)
_batch = Histogram("lane_batch_records", "Records per handler call", _LABELS, buckets=_BATCH)
_commit_s = Histogram("lane_commit_seconds", "Begin to end of a committed transaction", _LABELS, buckets=_LATENCY_S)
_aborts = Counter("lane_aborts_total", "Transactions that were aborted", _LABELS)
_dead_letters = Counter("lane_dead_letters_total", "Records sent to a dead-letter queue", _LABELS)
_lag = Gauge("lane_lag_records", "Records between the committed offsets and the ends of the inputs", _LABELS)
_timers_due = Gauge("lane_timers_due", "Timers whose time has come and that have not fired", _LABELS)
_restored = Counter("lane_restored_records_total", "Changelog records applied by restores", _LABELS)


class LaneMetrics:
    """The metrics of one lane, labels bound once."""

    def __init__(self, agent: str, partition: int) -> None:
        labels = (agent, str(partition))
        self.records = _records.labels(*labels)
        self.batch = _batch.labels(*labels)
        self.commit_seconds = _commit_s.labels(*labels)
        self.aborts = _aborts.labels(*labels)
        self.dead_letters = _dead_letters.labels(*labels)
        self.lag = _lag.labels(*labels)
        self.timers_due = _timers_due.labels(*labels)
        self.restored = _restored.labels(*labels)
