"""The contenders: how each is prepared and started, and why one is left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from ops.bench.engine.workers.job import Job
from ops.bench.engine.workload import BALANCE, MOVEMENT
from ops.local.jars import class_path, ensure_jars, read_lock
from ops.local.java import java_binary
from ops.local.layout import CHECKOUT, cache_directory

HERE = Path(__file__).resolve().parent
Report = Callable[[str], None]


class Skipped(Exception):  # noqa: N818 - no error: the report says why
    """This contender cannot run on this machine."""


@dataclass(frozen=True)
class Contender:
    """One row of the results."""

    name: str
    title: str
    prepare: Callable[[Report], list[str]]  # the command, to which the job's file is added; raises Skipped
    processes: int = 1
    java: bool = False  # its job file is a Java properties file
    changelog: str = "{app}-balances-changelog"
    makes_topics: bool = False  # creates its changelog itself
    restores: bool = False
    latency: bool = False


def _python(module: str) -> Callable[[Report], list[str]]:
    return lambda _: [sys.executable, "-m", f"ops.bench.engine.workers.{module}"]


def prepare_quix(report: Report) -> list[str]:
    """Python of an environment that holds exactly what quix.txt locks."""
    lock = HERE / "quix.txt"
    home = cache_directory() / "bench" / f"quix-{sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / ".complete").exists():
        report("Installing Quix Streams into an environment of its own.")
        shutil.rmtree(home, ignore_errors=True)
        venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)]
        finished = subprocess.run(install, capture_output=True, text=True)  # noqa: S603
        if finished.returncode != 0:
            raise Skipped(f"Quix Streams could not be installed: {finished.stderr[-300:]}")
        (home / ".complete").touch()
    return [str(python), "-m", "ops.bench.engine.workers.quix"]


def prepare_kafka_streams(report: Report) -> list[str]:
    """java with the locked jars and the compiled source; skipped where no JDK is (the wheel's JRE has no compiler)."""
    javac = shutil.which("javac")
    if javac is None:
        raise Skipped("no javac on this machine: install a JDK of version 17 or later to compare with Kafka Streams")
    lock = read_lock(HERE / "kafka-streams.json")
    ensure_jars(cache_directory(), report, lock)
    jars = ":".join(map(str, class_path(cache_directory(), "kafka-streams", lock)))
    source = HERE / "kafka_streams" / "Balances.java"
    classes = cache_directory() / "bench" / f"kafka-streams-{sha256(source.read_bytes()).hexdigest()[:12]}"
    if not (classes / "Balances.class").exists():
        classes.mkdir(parents=True, exist_ok=True)
        compile_command = [javac, "--release", "17", "-nowarn", "-cp", jars, "-d", str(classes), str(source)]
        finished = subprocess.run(compile_command, capture_output=True, text=True)  # noqa: S603
        if finished.returncode != 0:
            raise Skipped(f"Balances.java does not compile here: {finished.stderr[-600:]}")
    return [str(java_binary()), "-Xmx1g", "-cp", f"{classes}:{jars}", "Balances"]


CONTENDERS = (
    Contender("ours", "This engine, one process", _python("ours"), restores=True, latency=True),
    Contender("ours-2", "This engine, two processes", _python("ours"), processes=2),
    Contender("bare", "Bare confluent-kafka loop, no engine, no store", _python("bare")),
    Contender(
        "kafka-streams",
        "Kafka Streams (Java), exactly_once_v2, one thread, RocksDB",
        prepare_kafka_streams,
        java=True,
        restores=True,
        latency=True,
    ),
    Contender(
        "quix",
        "Quix Streams, exactly-once, RocksDB",
        prepare_quix,
        changelog="changelog__{app}--{input}--default",
        makes_topics=True,
        latency=True,
    ),
    Contender("stock-faust", "Stock faust-streaming, exactly_once, RocksDB", _python("stock_faust")),
)


def start(contender: Contender, command: list[str], job: Job, directory: Path) -> subprocess.Popen[bytes]:
    """Start one process of a contender; its output goes to a log in `directory`."""
    path = directory / f"{job.app}-{job.instance}.job"
    if contender.java:
        path.write_text(_properties(job))
    else:
        job.write(path)
    with (directory / f"{job.app}-{job.instance}.log").open("ab") as log:
        return subprocess.Popen([*command, str(path)], stdout=log, stderr=log, cwd=CHECKOUT)  # noqa: S603


def _properties(job: Job) -> str:
    values = {name: getattr(job, name) for name in ("app", "bootstrap", "input", "output", "state", "result")}
    schemas = {"movement": msgspec.json.encode(MOVEMENT).decode(), "balance": msgspec.json.encode(BALANCE).decode()}
    all_of_it = {**values, "commit_ms": job.commit_ms, "ca": job.tls["ca"], "bundle": job.tls["bundle"], **schemas}
    return "".join(f"{name}={value}\n" for name, value in all_of_it.items())
