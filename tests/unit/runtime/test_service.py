"""A service's process: it drains on SIGTERM, and a crash ends it with one clear line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

PROGRAM = """
import asyncio, sys
from ops.runtime.service import run
from tests.unit.api.platform_in_memory import api_settings

class Part:
    def __init__(self, name, service): self.name, self.service = name, service
    async def start(self): print("start", self.name, flush=True)
    async def stop(self): print("stop", self.name, flush=True)

class Crashing(Part):
    async def start(self):
        self.service.spawn(self.crash(), "crash")
    async def crash(self):
        raise RuntimeError("secret text")

class Clinging(Crashing):
    async def start(self):
        self.clinging = asyncio.create_task(self.cling())
        await super().start()
    async def cling(self):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                print("ignored", flush=True)

class Failing(Part):
    async def start(self): raise ConnectionRefusedError("port in use")

async def build(service):
    last = {"well": Part, "crash": Crashing, "fail": Failing, "cling": Clinging}[sys.argv[1]]
    return [Part("first", service), last("last", service)]

sys.exit(run(api_settings(), build))
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def begin(how: str, processes: list[subprocess.Popen[str]]) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    processes.append(process)
    return process


def logged(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_sigterm_stops_components_in_reverse_and_ends_with_zero(processes: list[subprocess.Popen[str]]) -> None:
    process = begin("well", processes)
    assert process.stdout is not None
    seen = ""
    while "service ready" not in seen:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    plain = [line for line in (seen + rest).splitlines() if not line.startswith("{")]
    assert plain == ["start first", "start last", "stop last", "stop first"]
    assert logged(rest)[-1]["event"] == "service ended"


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("crash", "builtins.RuntimeError"),
        ("fail", "builtins.ConnectionRefusedError"),
        ("cling", "builtins.RuntimeError"),  # a library's task that ignores its cancellation holds nothing up
    ],
)
def test_a_crash_ends_the_process_with_one_and_one_clear_line(
    how: str, error: str, processes: list[subprocess.Popen[str]]
) -> None:
    process = begin(how, processes)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = [line for line in logged(text) if line["event"] == "service failed"]
    assert (line["level"], line["error"]) == ("critical", error)
    assert "stop first" in text
    assert "secret text" not in text
