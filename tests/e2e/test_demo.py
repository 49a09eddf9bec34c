"""`payments demo` is the judge of every hop: it must pass on a sound platform, and while any one service is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.local_servers import ROOT, Servers, payments

SERVICES = (
    "payment-api",
    "payment-worker",
    "records-worker",
    "provider-gateway",
    "batch-processor",
    "webhook-dispatcher",
    "provider-simulator",
)
SEED = int(os.environ.get("PAYMENTS_TEST_SEED", "20"))
DEMO_S, BACK_S = 240.0, 60.0


def test_twenty_payments_are_accounted_for(stack: Servers) -> None:
    demo = payments("demo", "--payments", "20", home=stack.home.root, timeout=DEMO_S)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "✗" not in demo.stdout


@pytest.mark.timeout(DEMO_S + BACK_S + 30)
def test_forty_payments_are_accounted_for_though_a_service_is_killed(stack: Servers, tmp_path: Path) -> None:
    choice = random.Random(SEED)
    victim, after_s = choice.choice(SERVICES), choice.uniform(1.0, 3.0)
    before = process_of(stack, victim)
    output = tmp_path / "demo.txt"
    with output.open("w") as file:
        command = [sys.executable, "-m", "ops.cli.main", "demo", "--home", str(stack.home.root), "--payments", "40"]
        demo = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, "COLUMNS": "150"})
        try:
            wait_for_first_payment(stack, before_count=log_lines(stack))
            time.sleep(after_s)  # the fault's own moment, within the run
            assert demo.poll() is None, output.read_text()
            os.kill(before["pid"], signal.SIGKILL)
            status = demo.wait(DEMO_S)
        finally:
            demo.kill()
            demo.wait()
    assert status == 0, f"{victim} was killed after {after_s:.1f} s\n{output.read_text()}"
    payments("up", "--detach", home=stack.home.root, timeout=BACK_S)  # returns when all is ready
    after = process_of(stack, victim)
    assert (after["state"], after["restarts"]) == ("running", before["restarts"] + 1)
    assert after["pid"] != before["pid"]


def process_of(stack: Servers, name: str) -> dict[str, Any]:
    [found] = [service for service in stack.status()["services"] if service["name"] == name]
    return dict(found)


def log_lines(stack: Servers) -> int:
    return stack.home.log("payment-api").read_text().count('"/payments"')


def wait_for_first_payment(stack: Servers, before_count: int) -> None:
    """Return when the demo's first payment has reached the API."""
    deadline = time.monotonic() + 30
    while log_lines(stack) == before_count:
        assert time.monotonic() < deadline, "the demo did not begin"
        time.sleep(0.05)
