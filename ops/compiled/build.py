"""Compiles what ops.compiled.finder names: `python -m ops.compiled.build`, which `make setup` runs.

Needs mypyc (ops/locks/compiler.txt), Python's headers and a C compiler: the machine's `cc`, or the one in the wheel
`ziglang`. Without them everything runs as it is in the source, with more of the processor; that is said and no error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ops.compiled import finder

PTH = "import ops.compiled.finder; ops.compiled.finder.install()\n"

_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup
target, group, *files = sys.argv[1:]
modules = mypycify(files, opt_level="3", debug_level="0", group_name=group, target_dir=target)
places = ["--build-lib", f"{target}/lib", "--build-temp", f"{target}/obj"]
setup(script_args=["--quiet", "build_ext", *places], ext_modules=modules)
"""


def main() -> int:
    """Compile unless it is done; exit status 0 in any case, for nothing depends on it but speed."""
    extensions = finder.directory()
    if not extensions.is_dir():
        lacking = missing()
        if lacking is not None:
            _say(f"Nothing is compiled: {lacking}. Everything works, with more of the processor.")
            return 0
        failure = _compile(extensions)
        if failure is not None:
            _say("Nothing is compiled, for the compiler failed. Everything works, with more of the processor.")
            _say(failure)
            return 0
    _hook()
    for other in finder.home().iterdir():
        if other != extensions:
            shutil.rmtree(other, ignore_errors=True)
    return 0


def missing() -> str | None:
    """What is not here, and how to get it; None when all is."""
    if not _has_module("mypyc"):
        return f"there is no mypyc (pip install -r {finder.COMPILER})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's headers are missing (on Debian: apt-get install python3-dev)"
    if _compiler() is None:
        return "there is no C compiler (on Debian: apt-get install gcc; anywhere: pip install -r ops/locks/zig.txt)"
    return None


def _compiler() -> dict[str, str] | None:
    """What the environment has to say for setuptools to use the C compiler that is here; None without one."""
    if os.environ.get("CC") or shutil.which("cc"):
        return {}
    if _has_module("ziglang"):
        command = f"{sys.executable} -m ziglang cc"
        return {"CC": command, "LDSHARED": f"{command} -shared"}
    return None


def _has_module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _compile(extensions: Path) -> str | None:
    """Leaves the extensions in their place, all or none; returns what went wrong."""
    with _workplace() as work:
        command = [sys.executable, "-c", _SETUP, str(work), finder.GROUP, *map(str, _relative_sources())]
        environment = {**finder.environment_of_sources(), **(_compiler() or {})}
        done = subprocess.run(command, cwd=finder.CHECKOUT, env=environment, capture_output=True, text=True)  # noqa: S603
        if done.returncode != 0:
            return (done.stdout + done.stderr)[-2_000:]
        with contextlib.suppress(OSError):  # another build was first: its result is the same
            (work / "lib").rename(extensions)
    return None


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A directory beside the extensions, so that they are moved in one step."""
    finder.home().mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=finder.home(), prefix="unfinished-") as name:
        yield Path(name)


def _relative_sources() -> list[Path]:
    return [finder.source_of(module).relative_to(finder.CHECKOUT) for module in finder.MODULES]


def _hook() -> None:
    """Every interpreter of this environment looks for compiled modules first."""
    file = finder.home().with_suffix(".pth")
    if not file.exists() or file.read_text() != PTH:
        file.write_text(PTH)


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")


if __name__ == "__main__":
    sys.exit(main())
