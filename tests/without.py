"""Does a test fail when an endpoint, a code or a magic token is taken away? `make without` takes away each in turn.

As a plugin (`-p tests.without`) this takes away what the variable PAYMENTS_TEST_WITHOUT names: `route GET /v1/payments`
answers 404, `code not_found` becomes `internal_error`, `token pm_card_declined` is unknown. As a program it runs the
tests that know of it without each, one after the other, and prints which of them stayed green; none may.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api import problems, routes
from ops.runtime.problem import problem_response
from ops.simulator.behaviours import BEHAVIOURS, UNKNOWN_TOKEN, Behaviour

VARIABLE, LISTING = "PAYMENTS_TEST_WITHOUT", "PAYMENTS_TEST_ROUTES"
INSTEAD = "internal_error"
IN_MEMORY = ("tests/unit/api", "--ignore=tests/unit/api/test_fuzz.py")
AT_THE_PROVIDER = ("tests/integration/simulator",)


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Take it away before anything is imported that uses it."""
    if listing := os.environ.get(LISTING):
        _watch_routes(lambda route: _append(Path(listing), f"{route.method} {route.path}"))
    kind, _, name = os.environ.get(VARIABLE, "").partition(" ")
    if kind == "route":
        _watch_routes(lambda route: _refuse(route) if f"{route.method} {route.path}" == name else None)
    elif kind == "code":
        _rename_code(name)
    elif kind == "token":
        _forget_token(name)


def _watch_routes(act: Callable[[routes.Route], None]) -> None:
    original = routes.Route.__post_init__

    def post_init(self: routes.Route) -> None:
        original(self)
        act(self)

    routes.Route.__post_init__ = post_init  # type: ignore[method-assign]


def _refuse(route: routes.Route) -> None:
    async def missing(call: Any) -> Any:
        raise problems.not_found()

    object.__setattr__(route, "handler", missing)


def _rename_code(name: str) -> None:
    instead = INSTEAD if name != INSTEAD else "unavailable"
    init = problems.Problem.__init__

    def renamed(self: problems.Problem, code: str, *arguments: Any, **options: Any) -> None:
        init(self, instead if code == name else code, *arguments, **options)

    def response(status: int, code: str, *arguments: Any, **options: Any) -> Any:
        if code == name:
            status, code = problems.CODES[instead], instead
        return problem_response(status, code, *arguments, **options)

    problems.Problem.__init__ = renamed  # type: ignore[method-assign]
    vars(problems)["problem_response"] = response


def _forget_token(name: str) -> None:
    if BEHAVIOURS.pop(name) == UNKNOWN_TOKEN:  # it behaves as unknown ones do: nobody could miss it
        BEHAVIOURS[name] = Behaviour()


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


def every_route() -> list[str]:
    """`METHOD path` of each, as the server declares them."""
    with tempfile.TemporaryDirectory() as directory:
        listing = Path(directory) / "routes"
        _pytest(("tests/unit/api/test_openapi.py",), {LISTING: str(listing)})
        return sorted(set(listing.read_text().splitlines()))


def _pytest(what: tuple[str, ...], variables: dict[str, str]) -> bool:
    """Whether these tests pass."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "tests.without", "-p", "no:cacheprovider", *what]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True).returncode == 0


def main() -> int:
    """Take away everything in turn; 1 when something is missed by nobody."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those whose name contains this")
    only = parser.parse_args().only
    everything = [
        *((f"route {name}", IN_MEMORY) for name in every_route()),
        *((f"code {name}", IN_MEMORY) for name in problems.CODES),
        *((f"token {name}", AT_THE_PROVIDER) for name in BEHAVIOURS),
    ]
    missed: list[str] = []
    for name, tests in everything:
        if only not in name:
            continue
        began = time.monotonic()
        green = _pytest(tests, {VARIABLE: name})
        sys.stdout.write(f"{name:<70} {'GREEN' if green else 'red'} {time.monotonic() - began:5.1f} s\n")
        sys.stdout.flush()
        missed += [name] if green else []
    sys.stdout.write(f"{len(missed)} are missed by no test: {', '.join(missed)}\n" if missed else "All are missed.\n")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
