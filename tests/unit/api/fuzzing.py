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

from tests.unit.api.platform_in_memory import Platform

NO_LIMITS = {f"{whose}_requests_{what}": 1e6 for whose in ("key", "address") for what in ("per_s", "burst")}
CONFIG = Path(__file__).with_suffix(".toml")
REQUEST_S = 5  # none may take longer: a request that hangs is a finding, not a reason to wait


async def fuzz(examples: int, folder: Path, seed: int | None = None, *, operators: bool = False) -> tuple[int, str]:
    """Runs every phase and check; gives the exit status and what was printed. `examples`: per operation and phase."""
    async with Platform(**NO_LIMITS) as platform:
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
    return process.returncode, output.decode(errors="replace")


if __name__ == "__main__":
    statuses = []
    for operators in (False, True):
        with contextlib.redirect_stdout(open(os.devnull, "w")):
            status, printed = asyncio.run(fuzz(int(sys.argv[1]), Path(), operators=operators))
        sys.stderr.write(printed)
        statuses.append(status)
    raise SystemExit(max(statuses))
