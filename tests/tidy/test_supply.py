"""Rules of what comes from outside: pinned with hashes; and no address of a machine or a registry in the repository."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.tidy.sources import files, text

LOCKS = [path for path in files() if path.parent == Path("ops/locks")]
BINARY = {".png", ".jpg", ".svg", ".ico", ".woff2"}
URL = re.compile(r"\b[a-z]+://(?![?/])([^/\s\"'`)>\]{}]+)")
HOSTS = re.compile(  # nobody's (RFC 2606, RFC 6761), our own, tests of the SSRF guard, licence, standards
    r"(.*@)?("
    r"127\.\d+\.\d+\.\d+|\[.*|\d+(\.\d+){0,3}|0x[0-9a-f]+|localhost|kafka|cassandra|payments\.local|api|host"
    r"|([a-z0-9-]+\.)*(example|exämple.com|test|invalid|local|example\.com|example\.org|example\.net)"
    r"|www\.apache\.org|keepachangelog\.com|semver\.org|www\.standardwebhooks\.com"
    r"|api\.stripe\.com|docs\.stripe\.com"  # an acquirer that one may choose in the settings"
    r")(:.*)?",
    re.IGNORECASE,
)
OF_ONE_MACHINE = re.compile(r"(?<![\w.])/(home|root|work|Users)/\w")


def test_each_python_requirement_is_pinned_with_hashes() -> None:
    for name in ("installer", "runtime", "compiler", "zig", "development"):
        entries = re.split(r"\n(?=\S)", text(Path(f"ops/locks/{name}.txt")).strip())
        assert entries
        loose = [entry.splitlines()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]
        assert loose == [], name


def test_each_jar_is_pinned_with_its_hash() -> None:
    servers = json.loads(text(Path("ops/locks/jars.json")))["servers"]
    assert servers.keys() == {"kafka", "cassandra", "schema-registry"}
    for server in servers.values():
        assert all(re.fullmatch(r"[0-9a-f]{64}", artifact["sha256"]) for artifact in server["artifacts"])


@pytest.mark.parametrize("lock", LOCKS, ids=str)
def test_a_lock_names_no_place(lock: Path) -> None:
    assert "://" not in text(lock)
    assert "index-url" not in text(lock)


def test_no_file_names_a_host_of_somebody() -> None:
    named = {
        f"{path}: {host}"
        for path in files()
        if path.suffix not in BINARY
        for host in URL.findall(text(path).replace("\\.", "."))  # also in regular expressions
        if not HOSTS.fullmatch(host.rstrip(".,;"))
    }
    assert named == set()


def test_no_file_names_a_path_of_one_machine() -> None:
    assert [path for path in files() if path.suffix not in BINARY and OF_ONE_MACHINE.search(text(path))] == []
