"""Importing does no work: no module of ours starts a thread or process, connects, writes, or changes the process.

What a library does while it is itself imported is its own affair (urllib3 binds a socket to see if there is IPv6).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.tidy.sources import PACKAGES, ROOT, modules

FOREIGN = {
    "ops.bench.engine.workers.quix": "a contender that runs in an environment of its own",
}

PROGRAM = """
import importlib, json, os, signal, sys, threading
ACTS = {"socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename", "os.fork"}
done = []
def of_a_library():
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and "site-packages" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (event in ACTS or writes) and not of_a_library():
        done.append([event, repr(args)])
environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
sys.addaudithook(watch)
for name in json.loads(sys.argv[1]):
    before = len(done)
    importlib.import_module(name)
    for act in done[before:]:
        act.insert(0, name)
acts = done + [["", "thread", t.name] for t in threading.enumerate() if t is not threading.main_thread()]
if dict(os.environ) != environment:
    acts.append(["", "environment", repr(os.environ.keys() ^ environment.keys())])
if signal.getsignal(signal.SIGTERM) is not handler:
    acts.append(["", "signal handler", ""])
print(json.dumps(acts))
"""


def test_importing_every_module_does_no_work() -> None:
    finished = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, json.dumps(sorted({*modules(*PACKAGES)} - FOREIGN.keys()))],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == []
