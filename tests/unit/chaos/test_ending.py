"""SIGTERM ends `payments chaos` as Ctrl-C does: what it has started ends with it."""

from __future__ import annotations

import signal
import subprocess
import sys

PROGRAM = """
import time
from ops.cli.chaos import chaos

chaos()
try:
    print("begun", flush=True)
    while True:
        time.sleep(0.1)
finally:
    print("ended", flush=True)
"""


def test_what_was_started_ends_on_sigterm() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"ended\n"
