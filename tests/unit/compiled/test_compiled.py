"""Compiled modules take the place of their sources while these are what was compiled, and behave as they do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops.compiled import build, finder

ROOT = Path(__file__).resolve().parents[3]
WHERE = (
    "import sys; from importlib import import_module; [print(import_module(name).__file__) for name in sys.argv[1:]]"
)
SUITES = ("tests/unit/topics", "tests/unit/exactly_once", "tests/engine/test_simulation.py")
PATCHED = "mutant or bug or lock"  # they replace functions of the engine, which compiled code does not let them

needs_compiler = pytest.mark.skipif(build.missing() is not None, reason=f"nothing is compiled here: {build.missing()}")


def files_of_modules(**environment: str) -> list[Path]:
    command = [sys.executable, "-c", WHERE, *finder.MODULES]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [Path(line) for line in done.stdout.splitlines()]


@needs_compiler
def test_every_process_runs_what_is_compiled() -> None:
    assert all(file.is_relative_to(finder.directory()) for file in files_of_modules())


def test_a_process_runs_the_source_when_it_is_told_to() -> None:
    assert files_of_modules(PAYMENTS_COMPILED="0") == [finder.source_of(module) for module in finder.MODULES]


def test_this_process_runs_the_source_because_tests_replace_functions() -> None:
    assert not any(isinstance(each, finder.Finder) for each in sys.meta_path)


@needs_compiler
def test_a_source_that_has_changed_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (*map(finder.source_of, finder.MODULES), ROOT / finder.COMPILER):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    unchanged = finder.directory()
    monkeypatch.setattr(finder, "CHECKOUT", tmp_path)
    assert finder.directory() == unchanged
    with finder.source_of(finder.MODULES[0]).open("a") as source:
        source.write("\n")
    assert finder.directory() != unchanged
    meta_path = [*sys.meta_path]
    finder.install()
    assert sys.meta_path == meta_path


@needs_compiler
def test_what_is_compiled_passes_the_tests_of_its_source() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES, "-k", f"not ({PATCHED})"]
    environment = {**os.environ, "PAYMENTS_TEST_COMPILED": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3_000:]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PATH": "/nowhere"}, "Nothing is compiled: there is no C compiler (on Debian: apt-get install gcc"),
        ({"CC": "false"}, "Nothing is compiled, for the compiler failed. Everything works"),
    ],
    ids=["no compiler", "a compiler that fails"],
)
def test_a_machine_that_cannot_compile_is_told_so_and_goes_on(
    environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.delenv("CC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(finder, "home", lambda: tmp_path / "compiled")
    monkeypatch.setattr(build, "_has_module", lambda name: name == "mypyc")
    assert build.main() == 0
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "compiled.pth").exists()
