"""The jars: only what the lock names is used, whatever a download, a disk or a neighbour did to it."""

from __future__ import annotations

import gc
import hashlib
import io
import re
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from ops.local.errors import StackError
from ops.local.jars import (
    ATTEMPTS,
    LOCK_FILE,
    Lock,
    LockedArtifact,
    LockedServer,
    class_path,
    ensure_jars,
    read_lock,
    tree_digest,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

CONTENT = {f"part{number}": f"jar number {number}".encode() * 500 for number in range(4)}


class Repository(ThreadingHTTPServer):
    """A Maven repository on loopback that can be told to misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.cut_short = 0  # so many answers for each file end in their middle
        self.asked: Counter[str] = Counter()


class _Handler(BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        if name not in self.server.files:
            self.send_error(404)
            return
        self.server.asked[name] += 1
        content = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.asked[name] <= self.server.cut_short else content)

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with Repository() as server:
        server.files = {f"{name}-1.jar": content for name, content in CONTENT.items()}
        settings = tmp_path / "jgo.conf"
        settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
        monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
    gc.collect()  # jgo leaves connections to the collector, which complains of them: here, where it is ignored


@pytest.fixture
def lock() -> Lock:
    artifacts = [
        LockedArtifact(group="test", name=name, version="1", sha256=hashlib.sha256(content).hexdigest())
        for name, content in CONTENT.items()
    ]
    return Lock(format=1, servers={"server": LockedServer(roots=["test:part0:1"], artifacts=artifacts)})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def fetch(tmp_path: Path, lock: Lock, said: list[str]) -> Callable[[], None]:
    return lambda: ensure_jars(tmp_path / "cache", said.append, lock)


def cached(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "cache" / "jars" / "server").glob("*")}


def test_everything_is_fetched_once_and_then_only_verified(
    tmp_path: Path, repository: Repository, fetch: Callable[[], None], said: list[str]
) -> None:
    fetch()
    fetch()

    assert cached(tmp_path) == repository.files
    assert set(repository.asked.values()) == {1}
    assert said == ["Fetching 4 files from Maven Central."]


def test_damaged_jar_is_named_and_fetched_again(
    tmp_path: Path, repository: Repository, fetch: Callable[[], None], said: list[str]
) -> None:
    fetch()
    (tmp_path / "cache" / "jars" / "server" / "part2-1.jar").write_bytes(b"half a j")
    fetch()

    assert cached(tmp_path) == repository.files
    assert "part2-1.jar does not match the lock and is fetched again." in said


def test_jar_with_another_hash_is_refused(tmp_path: Path, repository: Repository, fetch: Callable[[], None]) -> None:
    repository.files["part1-1.jar"] = b"something else"

    with pytest.raises(StackError, match=r"part1-1\.jar came with SHA-256 .* refused"):
        fetch()
    assert "part1-1.jar" not in cached(tmp_path)


def test_half_a_download_never_enters_the_cache(
    tmp_path: Path, repository: Repository, fetch: Callable[[], None]
) -> None:
    repository.cut_short = ATTEMPTS
    with pytest.raises(StackError, match=r"could not be fetched.*try again"):
        fetch()
    assert cached(tmp_path) == {}

    repository.cut_short = 0
    fetch()
    assert cached(tmp_path) == repository.files


def test_dropped_connection_is_tried_again(tmp_path: Path, repository: Repository, fetch: Callable[[], None]) -> None:
    repository.cut_short = 1
    fetch()
    assert cached(tmp_path) == repository.files
    assert set(repository.asked.values()) == {2}


def test_network_that_is_not_there_gets_one_sentence(tmp_path: Path, repository: Repository, lock: Lock) -> None:
    repository.files = {}

    with pytest.raises(StackError, match=r"part\d-1\.jar is not to be had"):
        ensure_jars(tmp_path / "cache", lambda _sentence: None, lock)


def test_two_processes_fetch_each_file_once(tmp_path: Path, repository: Repository, lock: Lock) -> None:
    lock_file = tmp_path / "lock.json"
    lock_file.write_bytes(msgspec.json.encode(lock))
    program = (
        "import sys; from pathlib import Path; from ops.local.jars import ensure_jars, read_lock;"
        "ensure_jars(Path(sys.argv[1]), print, read_lock(Path(sys.argv[2])))"
    )
    argv = [sys.executable, "-c", program, str(tmp_path / "cache"), str(lock_file)]
    both = [subprocess.Popen(argv, stdout=subprocess.DEVNULL) for _ in range(2)]

    assert [process.wait(60) for process in both] == [0, 0]
    assert cached(tmp_path) == repository.files
    assert set(repository.asked.values()) == {1}


def test_archive_is_unpacked_and_every_file_of_it_verified(tmp_path: Path, repository: Repository) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in (("lib/a.jar", b"a"), ("lib/b.jar", b"b")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    tree = tmp_path / "tree" / "lib"
    tree.mkdir(parents=True)
    (tree / "a.jar").write_bytes(b"a")
    (tree / "b.jar").write_bytes(b"b")
    repository.files["app-1-all.tar.gz"] = packed.getvalue()
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    digest = tree_digest(tmp_path / "tree")
    artifact = LockedArtifact(
        group="test", name="app", version="1", packaging="tar.gz", classifier="all", sha256=sha256, tree_sha256=digest
    )
    lock = Lock(format=1, servers={"server": LockedServer(roots=[], artifacts=[artifact])})
    unpacked = tmp_path / "cache" / "jars" / "server" / "app-1" / "lib" / "a.jar"

    ensure_jars(tmp_path / "cache", lambda _sentence: None, lock)
    unpacked.write_bytes(b"evil")
    ensure_jars(tmp_path / "cache", lambda _sentence: None, lock)

    assert unpacked.read_bytes() == b"a"


def test_class_path_holds_the_locked_files_and_no_other(tmp_path: Path, lock: Lock) -> None:
    assert [path.name for path in class_path(tmp_path, "server", lock)] == [f"{name}-1.jar" for name in CONTENT]


def test_our_lock_pins_every_file_and_names_no_host() -> None:
    lock = read_lock()

    assert set(lock.servers) == {"kafka", "cassandra", "schema-registry"}
    for server in lock.servers.values():
        assert all(re.fullmatch("[0-9a-f]{64}", artifact.sha256) for artifact in server.artifacts)
    assert "://" not in LOCK_FILE.read_text()
