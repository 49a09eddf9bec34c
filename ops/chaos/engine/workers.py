"""The worker processes of an app under test: started, signalled, armed, and started again when they end by themselves.

A worker that is fenced, or cannot know what became of its transaction, exits by design; whoever supervises it starts it
again. One that refuses to start, or fails otherwise, is a violation.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ops.chaos.engine.cluster import Cluster
from ops.chaos.engine.topology import Topics
from ops.compiled import finder

ENGINE = "ops.chaos.engine.worker"
STOCK = "ops.chaos.engine.stock"
ROOT = Path(__file__).resolve().parents[3]
STOP_S = 30.0
UNEXPECTED = ("StateMismatch", "StateInUse", "the pump failed", "Fatal Python error")


@dataclass(slots=True)
class Worker:
    """One place in the group: `number` has a state directory and a log, whichever process runs there."""

    number: int
    state: Path
    log: Path
    instance: str | None  # static member of the group, or None
    process: subprocess.Popen[bytes] | None = None
    stopped: bool = False  # by SIGSTOP

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass
class Workers:
    """All workers of one app."""

    cluster: Cluster
    topics: Topics
    root: Path
    module: str = ENGINE
    mutant: str = ""
    all: dict[int, Worker] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)  # how workers ended by themselves

    def start(self, number: int = 0, failpoints: str = "", *, static: bool = True) -> Worker:
        """Start worker `number`. As a static member its successor takes its place at once."""
        worker = self.all.get(number)
        if worker is None:
            state = self.root / str(number)
            state.mkdir(parents=True, exist_ok=True)
            log = self.root / f"worker-{number}.log"
            worker = self.all[number] = Worker(number, state, log, f"w{number}" if static else None)
        assert not worker.alive
        arguments = [
            *(
                "--app",
                self.topics.id,
                "--partitions",
                str(self.topics.partitions),
                "--kafka",
                self.cluster.bootstrap,
                "--tls",
                json.dumps(dict(self.cluster.tls)),
            ),
            *("--state", str(worker.state), "--failpoints", failpoints, "--mutant", self.mutant),
            *(() if worker.instance is None else ("--instance", worker.instance)),
        ]
        with worker.log.open("ab") as log_file:
            worker.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-u", "-m", self.module, *arguments],
                stdout=log_file,
                stderr=log_file,
                cwd=ROOT,
                # What is compiled lets nobody replace its functions.
                env=finder.environment_of_sources() if self.mutant else None,
            )
        return worker

    def signal(self, worker: Worker, number: signal.Signals) -> None:
        """Send a signal to a worker's process, if it still runs."""
        if worker.alive:
            assert worker.process is not None
            worker.process.send_signal(number)
            worker.stopped = {signal.SIGSTOP: True, signal.SIGCONT: False}.get(number, worker.stopped)

    def arm(self, worker: Worker, failpoints: str) -> None:
        """Arm failpoints in a running worker."""
        (worker.state / "failpoints").write_text(failpoints)
        self.signal(worker, signal.SIGUSR1)

    def wait(self, worker: Worker, timeout_s: float = STOP_S) -> int:
        """The exit code of a worker that ends. Raises subprocess.TimeoutExpired."""
        assert worker.process is not None
        worker.stopped = False
        return worker.process.wait(timeout_s)

    def kill(self, worker: Worker) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(worker, signal.SIGKILL)
        self.wait(worker)

    def revive(self) -> None:
        """Start again whoever has ended by itself, as a supervisor would."""
        for worker in self.all.values():
            if worker.alive or worker.process is None:
                continue
            self.ended[self.reason(worker)] += 1
            self.start(worker.number)

    def reason(self, worker: Worker) -> str:
        """How the last process of a worker ended: the error's class, or a number."""
        assert worker.process is not None
        lines = worker.log.read_text(errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line and not line.startswith(("[", " ", "{", "%"))), "")
        name = last.partition(":")[0].rpartition(".")[2]
        return name if worker.process.returncode == 1 and name.isidentifier() else str(worker.process.returncode)

    def retire(self, worker: Worker, timeout_s: float = STOP_S) -> int:
        """SIGTERM, wait, and forget the process: it is not started again."""
        self.signal(worker, signal.SIGTERM)
        code = self.wait(worker, timeout_s)
        worker.process = None
        return code

    def retire_all(self) -> list[str]:
        """SIGTERM for everybody at once; what went wrong with it, in sentences."""
        running = [worker for worker in self.all.values() if worker.alive]
        for worker in running:
            self.signal(worker, signal.SIGCONT)
            self.signal(worker, signal.SIGTERM)
        found = []
        for worker in running:
            try:
                code: object = self.wait(worker)
            except subprocess.TimeoutExpired:
                code = f"a time-out (its log says where it stood: {worker.log})"
                self.signal(worker, signal.SIGUSR2)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.wait(worker, 1.0)
                self.kill(worker)
            if code != 0:
                found.append(f"worker {worker.number} ended with {code} on SIGTERM")
            worker.process = None
        return found

    def tell_where_they_stand(self) -> None:
        """Every worker writes the stacks of its threads to its log."""
        for worker in self.all.values():
            self.signal(worker, signal.SIGUSR2)

    def stop(self) -> None:
        """End what still runs, a stopped one too."""
        for worker in self.all.values():
            if worker.alive:
                assert worker.process is not None
                os.kill(worker.process.pid, signal.SIGKILL)
                self.wait(worker)
            worker.process = None

    def log_of(self, number: int) -> str:
        """Everything that the processes of worker `number` have said."""
        return self.all[number].log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """Violations that workers have told of themselves."""
        return [
            f"worker {worker.number}: {word}"
            for worker in self.all.values()
            for word in UNEXPECTED
            if word in worker.log.read_text(errors="replace")
        ]
