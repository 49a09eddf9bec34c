"""Measures one contender: throughput, CPU and memory over a window, latency at a fixed rate, and the restore's rate."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from ops.bench.engine import topics
from ops.bench.engine.broker import Broker
from ops.bench.engine.contenders import Contender, start
from ops.bench.engine.workers.job import Job
from ops.bench.engine.workload import FEW_KEYS, PARTITIONS, Movements, decode_balance, encode_movement

START_S = 120.0
STOP_S = 60.0
SAMPLE_S = 0.25
TRICKLE_S = 0.2


class Throughput(msgspec.Struct, kw_only=True):
    """One measured window."""

    events_per_s: float
    seconds: float
    cpu_s_per_100k: float  # of the contender's processes
    broker_cpu_s_per_100k: float
    rss_mb: float  # highest, of all its processes together
    commits: int
    commit_ms_p50: float | None
    commit_ms_p99: float | None
    load_average: float  # of the machine, at the window's end: over 2 somebody else was working too
    differences: list[str]


class Latency(msgspec.Struct, kw_only=True):
    """From a record's hand-over to the producer to its committed output's arrival at a reader, at a steady rate."""

    rate: float
    events: int
    ms_p50: float
    ms_p99: float


class Restore(msgspec.Struct, kw_only=True):
    """A start without state: from the process's start to readiness, and how many changelog records that took."""

    records: int
    seconds: float
    records_per_s: float


@dataclass(frozen=True)
class Sample:
    at: float
    events: int
    cpu_s: float
    broker_cpu_s: float


class Bench:
    """One input, many contenders."""

    def __init__(self, broker: Broker, movements: Movements, directory: Path, commit_ms: int) -> None:
        self.broker = broker
        self.movements = movements
        self.directory = directory
        self.commit_ms = commit_ms

    def job(self, contender: Contender, source: str, instance: int = 0, suffix: str = "") -> Job:
        """What one process of `contender` is told."""
        app = f"{contender.name}{suffix}"
        where = self.directory / f"{app}-{instance}"
        return Job(
            app=app,
            bootstrap=self.broker.bootstrap,
            tls=self.broker.tls,
            input=source,
            output=f"{app}.out",
            changelog=contender.changelog.format(app=app, input=source),
            state=str(where / "state"),
            result=str(where.with_suffix(".json")),
            instance=f"i{instance}",
            commit_ms=self.commit_ms,
        )

    def make_topics(self, contender: Contender, job: Job) -> None:
        """Output, changelogs and what the engine wants besides."""
        compacted = [] if contender.makes_topics else [job.changelog]
        if contender.name.startswith("ours"):
            compacted.append(f"{job.app}-sums-timers-changelog")
        topics.create_topics(self.broker.client(), [job.output, f"{job.app}.dlq"], compacted)

    @contextlib.contextmanager
    def running(self, contender: Contender, command: list[str], jobs: list[Job]) -> Iterator[list[psutil.Process]]:
        """The contender's processes; on leaving they are told to stop, and killed if they do not."""
        for job in jobs:
            Path(job.state).mkdir(parents=True, exist_ok=True)
        processes = [start(contender, command, job, self.directory) for job in jobs]
        try:
            yield [psutil.Process(process.pid) for process in processes]
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def throughput(
        self, contender: Contender, command: list[str], source: str, total: int, warm_up_s: float, seconds: float
    ) -> Throughput:
        """Work through the backlog in `source` (of `total` records) for a while, then verify what was committed."""
        jobs = [self.job(contender, source, number) for number in range(contender.processes)]
        self.make_topics(contender, jobs[0])
        if self.movements.keys > FEW_KEYS:
            topics.fill_changelog(self.broker.client(), jobs[0].changelog, self.movements)
        with contextlib.closing(topics.Progress(self.broker.client(), jobs[0].app, jobs[0].input)) as progress:
            with self.running(contender, command, jobs) as processes:
                self._wait_for_work(processes, jobs[0], progress)
                time.sleep(warm_up_s)
                samples, rss = self._watch(processes, progress, total, seconds)
            load = psutil.getloadavg()[0]
            taken = self._settled(jobs[0], progress)
        first, last = samples[0], samples[-1]
        events, took = last.events - first.events, last.at - first.at
        assert events > 0, f"{contender.name} did nothing in the window: {self._log_tail(jobs[0])}"
        commits = self._commits(jobs, warm_up_s / (warm_up_s + seconds))
        return Throughput(
            events_per_s=events / took,
            seconds=took,
            cpu_s_per_100k=(last.cpu_s - first.cpu_s) / events * 1e5,
            broker_cpu_s_per_100k=(last.broker_cpu_s - first.broker_cpu_s) / events * 1e5,
            rss_mb=rss / 1e6,
            commits=len(commits),
            commit_ms_p50=percentile(commits, 0.5),
            commit_ms_p99=percentile(commits, 0.99),
            load_average=load,
            differences=topics.differences(
                self.broker.client(), self.movements, taken, jobs[0].output, jobs[0].changelog
            ),
        )

    def _wait_for_work(self, processes: list[psutil.Process], job: Job, progress: topics.Progress) -> None:
        deadline = time.monotonic() + START_S
        while not any(progress.committed().values()):
            alive = all(process.status() != psutil.STATUS_ZOMBIE for process in processes)
            assert alive, f"{job.app} has ended: {self._log_tail(job)}"
            assert time.monotonic() < deadline, f"{job.app} does not start: {self._log_tail(job)}"
            time.sleep(SAMPLE_S)

    def _settled(self, job: Job, progress: topics.Progress) -> dict[int, int]:
        """Where the group stands once no transaction is pending."""
        deadline = time.monotonic() + STOP_S
        while (taken := progress.settled()) is None:
            assert time.monotonic() < deadline, f"{job.app} left a transaction open"
            time.sleep(SAMPLE_S)
        return taken

    def _watch(
        self, processes: list[psutil.Process], progress: topics.Progress, total: int, seconds: float
    ) -> tuple[list[Sample], int]:
        """Samples until `seconds` are over or the input is used up, and the highest resident size in bytes."""
        samples: list[Sample] = []
        rss = 0
        while True:
            events = sum(progress.committed().values())
            cpu_s = sum(sum(process.cpu_times()[:2]) for process in processes)
            broker_cpu_s = self.broker.cpu_s
            rss = max(rss, sum(process.memory_info().rss for process in processes))
            sample = Sample(time.monotonic(), events, cpu_s, broker_cpu_s)
            if samples and events >= total:
                assert len(samples) > 1, f"the input of {total} records is too short"
                return samples, rss
            samples.append(sample)
            if sample.at - samples[0].at >= seconds:
                return samples, rss
            time.sleep(SAMPLE_S)

    def _commits(self, jobs: list[Job], skip: float) -> list[float]:
        """Durations of commits in ms, without those of the warm-up."""
        found: list[float] = []
        for job in jobs:
            if Path(job.result).exists():
                commits = json.loads(Path(job.result).read_text())["commits_s"]
                found += [seconds * 1000 for seconds in commits[int(len(commits) * skip) :]]
        return found

    def restore(self, contender: Contender, command: list[str], source: str) -> Restore:
        """Start again without state, on the changelog that the throughput run left."""
        job = self.job(contender, source)
        shutil.rmtree(job.state)
        ready = Path(job.result).with_suffix(".ready")
        ready.unlink(missing_ok=True)
        log = self.directory / f"{job.app}-{job.instance}.log"
        log.write_bytes(b"")
        with self.running(contender, command, [job]):
            deadline = time.monotonic() + START_S
            while not ready.exists():
                assert time.monotonic() < deadline, f"{job.app} does not restore: {self._log_tail(job)}"
                time.sleep(0.02)
        records, seconds = self._restored(contender, job)
        return Restore(records=records, seconds=seconds, records_per_s=records / seconds)

    def _restored(self, contender: Contender, job: Job) -> tuple[int, float]:
        """(records, seconds) from the first lane's or task's beginning to the last one's end."""
        events = json.loads(Path(job.result).read_text())["restores"]
        took = max(at for kind, at, _ in events if kind == "end") - min(at for kind, at, _ in events if kind == "start")
        return sum(count for kind, _, count in events if kind == "end"), took / (1000 if contender.java else 1)

    def latency(self, contender: Contender, command: list[str], rate: float, seconds: float) -> Latency:
        """Feed an empty input at `rate` events/s; the first third of the time is warm-up."""
        source = f"{contender.name}-latency.in"
        job = self.job(contender, source, suffix="-latency")
        topics.create_topics(self.broker.client(), [source], [])
        self.make_topics(contender, job)
        with self.running(contender, command, [job]):
            feeder = Feeder(self.broker, self.movements, source, rate)
            feeder.start()
            try:
                arrived = _arrivals(self.broker, job.output, seconds, feeder.full_speed)
            finally:
                feeder.stop()
        warm = seconds / 3
        counted = sorted(age for at, age in arrived if at - arrived[0][0] >= warm)
        return Latency(
            rate=rate,
            events=len(counted),
            ms_p50=percentile(counted, 0.5) or 0.0,
            ms_p99=percentile(counted, 0.99) or 0.0,
        )

    def _log_tail(self, job: Job) -> str:
        return (self.directory / f"{job.app}-{job.instance}.log").read_text(errors="replace")[-1_500:]


class Feeder(threading.Thread):
    """Appends movements at a steady rate; `occurred_at` is the moment of the hand-over to the producer."""

    def __init__(self, broker: Broker, movements: Movements, topic: str, rate: float) -> None:
        super().__init__(name="bench-feeder", daemon=True)
        settings = {"acks": "all", "linger.ms": 0, "partitioner": "murmur2_random", "enable.idempotence": True}
        self._producer = Producer({**broker.client(), **settings})
        self._movements = movements
        self._topic = topic
        self._rate = rate
        self._stopping = threading.Event()
        self.full_speed = threading.Event()  # before, only a trickle: a contender that starts must find no backlog

    def run(self) -> None:
        """Keep to the timetable: what is late is sent at once."""
        sent = 0
        while not self.full_speed.is_set() and not self._stopping.wait(TRICKLE_S):
            self._append(sent)
            sent += 1
        began, before = time.perf_counter(), sent
        while not self._stopping.wait(0.001):
            due = before + int((time.perf_counter() - began) * self._rate)
            while sent < due:
                self._append(sent)
                sent += 1
            self._producer.poll(0)

    def _append(self, number: int) -> None:
        key, fields = self._movements.movement_fields(number, time.time_ns() // 1000)
        self._producer.produce(self._topic, encode_movement(fields), key)

    def stop(self) -> None:
        """End it and wait until everything is written."""
        self._stopping.set()
        self.join()
        self._producer.flush(10)


def _arrivals(broker: Broker, topic: str, seconds: float, begun: threading.Event) -> list[tuple[float, float]]:
    """(arrival in s, age in ms) of `topic`'s committed records, over `seconds` from the first, which sets `begun`."""
    settings = {"group.id": "bench-latency", "isolation.level": "read_committed", "fetch.wait.max.ms": 10}
    consumer = Consumer({**broker.client(), **settings, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    ages: list[tuple[float, float]] = []
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        first = consumer.poll(0.1)
        now_us = time.time_ns() // 1000
        for message in () if first is None else (first, *consumer.consume(1_000, 0)):
            if message.error() is None:
                if not ages:
                    begun.set()
                    until = time.monotonic() + seconds
                age_us = now_us - decode_balance(message.value())["occurred_at"]
                ages.append((time.monotonic(), age_us / 1000))
    consumer.close()
    assert ages, f"nothing arrived in {topic}"
    return ages


def percentile(values: list[float], share: float) -> float | None:
    """The value below which `share` of `values` lie; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
