"""A server that starts patiently is the same process, and says so to the kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ops.local.patient_start import TIMER_SLACK_NS

ROOT = Path(__file__).resolve().parents[3]
TELLS = (
    "import os, threading; tell = lambda: print(os.getpid(), open(f'/proc/{threading.get_native_id()}/timerslack_ns')"
)
TELLS += ".read().strip()); tell(); thread = threading.Thread(target=tell); thread.start(); thread.join()"


def test_the_command_takes_the_process_over_and_all_its_threads_may_wake_late() -> None:
    command = [sys.executable, "-m", "ops.local.patient_start", sys.executable, "-c", TELLS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.read().split()
    assert told == [str(process.pid), str(TIMER_SLACK_NS)] * 2
