"""Rules of every Python file: what it says first, how long it may be, what it may be called, what it may do."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.sources import FOLDERS, ROOT, ROOT_FILES, files, functions, python_files, text, tree

FILE_LINES, TEST_FILE_LINES = 400, 500  # tests hold tables of cases
FUNCTION_LINES = 50
LONG_FILES = {
    "ops/chaos/engine/mutants.py": "a list of seeded bugs, each a few lines",
}
LONG_FUNCTIONS = {
    "api/payments.py:Payments.routes": "a table of routes with their documentation",
    "api/server.py:_build": "the composition of the service, in the order of its start",
    "api/webhook_endpoints.py:WebhookEndpoints.routes": "a table of routes with their documentation",
}
VAGUE = ("util", "helper", "common", "manager", "misc")
SLEEPS = {
    "api/auth.py": "every refusal of a key takes the same time",
    "ops/bench": "a measurement lasts a while",
    "ops/chaos": "faults and loads last a while",
    "ops/runtime/encryption.py": "a failed renewal is tried again after a pause, by whoever needs the key then",
    "ops/simulator/provider.py": "the simulated provider is slow when a token asks for it",
    "tests/e2e/test_demo.py": "a fault's moment within a run is what the test chooses",
}
ENVIRONMENT = {
    "ops/cli": "entry points build the settings",
    "ops/runtime/settings.py": "is what reads it",
    "ops/compiled": "runs before anything else could tell it what to do",
    "ops/local": "starts processes with an environment",
    "tests": "start processes with an environment",
}


def test_a_module_says_first_why_it_exists() -> None:
    silent = [p for p in python_files() if text(p).strip() and not ast.get_docstring(tree(p))]
    assert silent == []


def test_names_say_what_is_inside() -> None:
    assert [path for path in files() if any(word in path.stem.lower() for word in VAGUE)] == []


def test_files_stay_short() -> None:
    def limit(path: Path) -> int:
        return TEST_FILE_LINES if path.parts[0] == "tests" else FILE_LINES

    long = {str(path) for path in python_files() if len(text(path).splitlines()) > limit(path)}
    assert long <= LONG_FILES.keys()


def test_functions_stay_short() -> None:
    long = {
        f"{path}:{name}"
        for path in python_files()
        for name, function in functions(tree(path))
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES
    }
    assert long <= LONG_FUNCTIONS.keys()


def test_sleep_only_paces_a_loop() -> None:
    """A sleep outside a loop waits for something that it does not look at."""
    outside = {path for path in python_files() for _ in _sleeps_outside_loops(tree(path))}
    assert [path for path in outside if not any(path.is_relative_to(place) for place in SLEEPS)] == []


def test_the_environment_is_read_at_entry_points_only() -> None:
    readers = [
        path
        for path in python_files()
        if any(_reads_environment(node) for node in ast.walk(tree(path)))
        and not any(path.is_relative_to(folder) for folder in ENVIRONMENT)
    ]
    assert readers == []


def test_schemas_are_data() -> None:
    assert [path for path in files() if path.parts[0] == "avro" and path.suffix != ".avsc"] == []


def test_the_top_level_is_fixed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.partition("/")[0] for line in listed.splitlines()} <= {*ROOT_FILES, *FOLDERS}


def _sleeps_outside_loops(node: ast.AST, *, in_loop: bool = False) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and _is_sleep(child) and not in_loop:
            yield child
        enters = isinstance(child, ast.For | ast.AsyncFor | ast.While)
        leaves = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _sleeps_outside_loops(child, in_loop=enters or (in_loop and not leaves))


def _is_sleep(call: ast.Call) -> bool:
    """`time.sleep(x)`, `asyncio.sleep(x)`; sleep(0) only lets others run."""
    if not (isinstance(call.func, ast.Attribute) and call.func.attr == "sleep" and call.args):
        return False
    return not (isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)


def _reads_environment(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
