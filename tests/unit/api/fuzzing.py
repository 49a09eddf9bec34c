"""Schemathesis against the API in memory: what its own documents allow and forbid, tried by the thousand.

`make fuzz` runs this for 10,000 cases of merchants' and operators' interfaces; the tests beside it for a few hundred.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from api.routes import Route
from tests.unit.api.platform_in_memory import MERCHANT, Platform

NO_LIMITS = {f"{whose}_requests_{what}": 1e6 for whose in ("key", "address") for what in ("per_s", "burst")}
CONFIG = Path(__file__).with_suffix(".toml")
REQUEST_S = 5  # none may take longer: a request that hangs is a finding, not a reason to wait


class Fuzzed(NamedTuple):
    """How a run ended."""

    status: int  # the exit status: 0 when every answer was as documented
    printed: str
    unreached: list[str]  # operations of which no request succeeded


async def fuzz(examples: int, folder: Path, seed: int | None = None, *, operators: bool = False) -> Fuzzed:
    """Runs every phase and check. `examples`: per operation and phase."""
    platform = Platform(**NO_LIMITS)
    for day in ("2026-11-20", "2026-11-21"):
        platform.batches.settle(MERCHANT, day, payments=12)
    async with platform:
        port = platform.internal_port if operators else platform.port
        identity = "Operator: operator" if operators else f"Authorization: Bearer {platform.secret_key}"
        command = [
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                str(CONFIG),
                "run",
                f"http://127.0.0.1:{port}/openapi.json",
            ),
            *("--header", identity),
            *("--checks", "all", "--mode", "all", "--max-examples", str(examples), "--workers", "1"),
            *("--request-timeout", str(REQUEST_S), "--no-color", "--generation-database", "none"),
            *(("--seed", str(seed)) if seed is not None else ()),
        ]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "COLUMNS": "120"}
        )
        output, _ = await process.communicate()
    assert process.returncode is not None
    routes = platform.operator_routes if operators else platform.routes
    return Fuzzed(process.returncode, output.decode(errors="replace"), _unreached(platform.registry, routes))


def _unreached(registry: CollectorRegistry, routes: list[Route]) -> list[str]:
    reached = {
        (sample.labels["method"], sample.labels["route"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "payments_http_requests_total" and sample.labels["status"].startswith("2")
    }
    return [f"{route.method} {route.path}" for route in routes if (route.method, route.path) not in reached]


if __name__ == "__main__":
    statuses = []
    for operators in (False, True):
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            fuzzed = asyncio.run(fuzz(int(sys.argv[1]), Path(), operators=operators))
        sys.stderr.write(fuzzed.printed)
        sys.stderr.write(f"Operations of which no request succeeded: {', '.join(fuzzed.unreached) or 'none'}\n\n")
        statuses.append(fuzzed.status)
    raise SystemExit(max(statuses))
