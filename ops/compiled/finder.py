"""Imports what was compiled in place of its source, as long as the source is what it was compiled from.

Every interpreter of the environment runs `install` before anything else (a .pth file that ops.compiled.build leaves),
so this imports nothing but a little of the standard library.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[2]
SWITCH = "PAYMENTS_COMPILED"  # "0" in the environment: as it is in the source
COMPILER = "ops/locks/compiler.txt"
GROUP = "payments"  # of modules that are compiled together and call each other in C

MODULES = (
    "topics.avro",
    "streams.exactly_once.records",
    "streams.exactly_once.layers",
    "streams.exactly_once.intake",
    "streams.exactly_once.bulk",
    "streams.exactly_once.producer.batches",
)


def source_of(module: str) -> Path:
    """The file of a module of ours."""
    return CHECKOUT / f"{module.replace('.', '/')}.py"


def directory() -> Path:
    """Where the extensions of exactly these sources, by this compiler for this interpreter, are or would be."""
    digest = sha256()
    for file in (*map(source_of, MODULES), CHECKOUT / COMPILER):
        digest.update(file.read_bytes())
    return home() / f"{digest.hexdigest()[:16]}{EXTENSION_SUFFIXES[0]}"


def home() -> Path:
    """What holds the extensions of all sources that were compiled for this environment."""
    return Path(sysconfig.get_path("platlib")) / "payments_compiled"


class Finder(MetaPathFinder):
    """Finds the modules that are compiled, and the library that holds them all."""

    def __init__(self, extensions: Path) -> None:
        self._extensions = extensions
        self._names = {*MODULES, f"{GROUP}__mypyc"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The extension of a compiled module; None for every other one."""
        if fullname not in self._names:
            return None
        file = str(self._extensions / f"{fullname.replace('.', '/')}{EXTENSION_SUFFIXES[0]}")
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))


def install() -> None:
    """Let compiled modules take the place of their sources in this process, if they are there."""
    if os.environ.get(SWITCH) == "0":
        return
    try:
        extensions = directory()
    except OSError:  # a checkout that is not whole: whatever is missing, its import tells better
        return
    if extensions.is_dir():
        sys.meta_path.insert(0, Finder(extensions))


def environment_of_sources() -> dict[str, str]:
    """The environment of a process that is to run as it is in the source."""
    return {**os.environ, SWITCH: "0"}


def uninstall() -> None:
    """Import sources from now on: tests replace functions, which compiled code does not let them."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Finder)]
