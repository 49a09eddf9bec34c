"""Starts one broker: `python -m ops.local.kafka_start HOME NODE` becomes its JVM.

A broker that is alone and was killed is fenced first, by its own controller started without it. Otherwise Kafka 4.3.1
leads for a moment by metadata of before, and skips markers of decided transactions or loads half of the committed
offsets when that moment ends. Among several brokers the others' controllers fence it meanwhile. Decision 0017.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from ops.local import kafka
from ops.local.layout import Home, cache_directory
from ops.local.patient_start import become

FENCED = b"Fencing broker "
COMMITTED = b"publishing new image"
"""One may be of what was under way when the broker was fenced; the second is of that, or of what came after it."""
FENCED_WITHIN_S = 60.0
STOP_S = 20.0
_PR_SET_PDEATHSIG = 1  # prctl(2)

log = logging.getLogger("kafka-start")


def fence(command: list[str]) -> None:
    """Run the controller alone until it has fenced the broker, whose session ends for want of a heartbeat."""
    controller = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent,
    )
    overdue = threading.Timer(FENCED_WITHIN_S, controller.kill)
    try:
        overdue.start()
        assert controller.stdout is not None
        if _is_followed_by(_copied(controller.stdout), FENCED, COMMITTED, COMMITTED):
            log.info("the broker that was killed is fenced")
        else:
            log.warning("the controller ended (%s) before it fenced the broker", controller.wait())
    finally:
        overdue.cancel()
        controller.terminate()
        try:
            controller.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            controller.kill()
            controller.wait()


def _copied(lines: Iterable[bytes]) -> Iterator[bytes]:
    """To this process's own log, too, but for the many lines that are only waited for."""
    for line in lines:
        if COMMITTED not in line:
            sys.stdout.buffer.write(line)
        yield line


def _is_followed_by(lines: Iterator[bytes], *marks: bytes) -> bool:
    """Whether the marks come, in this order; reads no further than the last one's line."""
    return all(any(mark in line for line in lines) for mark in marks)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main() -> None:
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    home, node, cache = Home(Path(sys.argv[1])), int(sys.argv[2]), cache_directory()
    config = home.read_config()
    assert config is not None, "`up` writes the configuration before anything starts"
    signal.signal(signal.SIGTERM, _end)
    if config.nodes == 1 and kafka.was_killed(home, node):
        fence(kafka.controller_command(home, cache, node))
    sys.stdout.flush()
    become(kafka.start_command(home, cache, node))


if __name__ == "__main__":
    main()
