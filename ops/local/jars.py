"""The servers' jars: fetched once from Maven Central, and checked against `ops/locks/jars.json` before every start.

jgo knows where Maven Central is and what this machine's settings say about it; the lock names no host. A file only
enters the cache whole and verified (staged, hashed, renamed), so a killed download leaves nothing that could be used.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ops.local.errors import StackError

LOCK_FILE = Path(__file__).resolve().parents[1] / "locks" / "jars.json"
FETCHES_AT_ONCE = 16  # small files: latency, not bandwidth, sets the pace
TIMEOUT_S = 60
ATTEMPTS = 3  # one connection of two hundred may be dropped
PAUSE_S = 1.0


class LockedArtifact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file of a Maven repository."""

    group: str
    name: str
    version: str
    sha256: str
    classifier: str = ""
    packaging: str = "jar"
    tree_sha256: str = ""  # of an archive: digest of what it unpacks to, see `tree_digest`

    @property
    def filename(self) -> str:
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.name}-{self.version}{suffix}.{self.packaging}"


class LockedServer(msgspec.Struct, frozen=True, kw_only=True):
    """What one server needs on its class path, and from which coordinates that was resolved."""

    roots: list[str]
    artifacts: list[LockedArtifact]


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    servers: dict[str, LockedServer]


def read_lock(path: Path = LOCK_FILE) -> Lock:
    return msgspec.json.decode(path.read_bytes(), type=Lock)


def server_directory(cache: Path, server: str) -> Path:
    return cache / "jars" / server


def class_path(cache: Path, server: str, lock: Lock | None = None) -> list[Path]:
    """Exactly the locked files, so that a stray jar in the cache is never loaded."""
    locked = (lock or read_lock()).servers[server]
    return [server_directory(cache, server) / artifact.filename for artifact in locked.artifacts]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(directory: Path) -> str:
    """SHA-256 over the sorted lines "<relative path> <sha256>": one changed, added or missing file changes it."""
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def ensure_jars(cache: Path, report: Callable[[str], None], lock: Lock | None = None) -> None:
    """Have every locked file in the cache, verified. Safe to run in several processes at once.

    `report` gets one sentence for whatever is fetched again or for the first time.
    Raises StackError when a file cannot be had or is not what the lock says.
    """
    lock = lock or read_lock()
    if not _unusable(cache, lock):
        return
    with _exclusive(cache / "jars" / ".lock"):
        missing = _unusable(cache, lock)  # another process may just have fetched them
        for server, artifact in missing:
            if (path := server_directory(cache, server) / artifact.filename).exists():
                report(f"{path.name} does not match the lock and is fetched again.")
                path.unlink()
        if missing:
            report(f"Fetching {len(missing)} files from Maven Central.")
            _fetch(cache, missing)


def _unusable(cache: Path, lock: Lock) -> list[tuple[str, LockedArtifact]]:
    pairs = [(server, artifact) for server, locked in lock.servers.items() for artifact in locked.artifacts]
    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        usable = pool.map(lambda pair: _is_usable(server_directory(cache, pair[0]), pair[1]), pairs)
        return [pair for pair, good in zip(pairs, usable, strict=True) if not good]


def _is_usable(directory: Path, artifact: LockedArtifact) -> bool:
    if artifact.tree_sha256:
        tree = unpacked(directory, artifact)
        return tree.is_dir() and tree_digest(tree) == artifact.tree_sha256
    path = directory / artifact.filename
    return path.is_file() and sha256_of(path) == artifact.sha256


def unpacked(directory: Path, artifact: LockedArtifact) -> Path:
    return directory / f"{artifact.name}-{artifact.version}"


def _fetch(cache: Path, missing: list[tuple[str, LockedArtifact]]) -> None:
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=cache / "jars") as name:
        staging = Path(name)
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            for future in [pool.submit(_fetch_one, cache, staging, server, artifact) for server, artifact in missing]:
                future.result()


def _fetch_one(cache: Path, staging: Path, server: str, artifact: LockedArtifact) -> None:
    staged = staging / server / artifact.filename
    staged.parent.mkdir(parents=True, exist_ok=True)
    try:
        _download_patiently(artifact, staging / server, staged)
    except OSError as error:
        raise _disk_or_network_error(artifact, error) from error
    except RuntimeError as error:  # jgo: not found in any repository
        raise StackError(
            f"{artifact.filename} is not to be had from Maven Central.", "Check `ops/locks/jars.json`."
        ) from error
    directory = server_directory(cache, server)
    directory.mkdir(parents=True, exist_ok=True)
    if artifact.tree_sha256:
        _unpack(staged, staging / server / "tree", unpacked(directory, artifact))
    else:
        staged.replace(directory / artifact.filename)


def _download_patiently(artifact: LockedArtifact, staging: Path, target: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:  # a directory for each attempt: half a file of the last one is not found there
            _download(artifact, staging / f"repository-{attempt}", target)
        except OSError as error:
            if attempt == ATTEMPTS or not _is_network(error):
                raise
            time.sleep(attempt * PAUSE_S)
        else:
            return


def _download(artifact: LockedArtifact, repository: Path, target: Path) -> None:
    """Put the artifact's bytes at `target`, from this machine's Maven repository if it has the right ones."""
    from jgo.config import GlobalSettings  # costs 0.3 s, and a warm start does not need it
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    context = MavenContext(
        repo_cache=repository,
        remote_repos={"central": MAVEN_CENTRAL_URL, **settings.repositories},
        timeout=TIMEOUT_S,
    )
    component = context.project(artifact.group, artifact.name).at_version(artifact.version)
    wanted = component.artifact(artifact.classifier, artifact.packaging)
    local = Path(settings.repo_cache).expanduser() / component.path_prefix / artifact.filename
    if local.is_file() and sha256_of(local) == artifact.sha256:
        shutil.copyfile(local, target)
        return
    Path(wanted.resolve()).replace(target)
    if (found := sha256_of(target)) != artifact.sha256:
        raise StackError(
            f"{artifact.filename} came with SHA-256 {found[:12]}, not {artifact.sha256[:12]} as locked: refused.",
            "Try again; if it stays, the download is being tampered with.",
        )


def _unpack(archive: Path, tree: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tree, filter="data")
    if target.exists():
        shutil.rmtree(target)
    tree.replace(target)


def _is_network(error: OSError) -> bool:
    return error.errno is None or error.filename is None


def _disk_or_network_error(artifact: LockedArtifact, error: OSError) -> StackError:
    if not _is_network(error):
        return StackError(f"{artifact.filename} could not be stored: {error.strerror}.", "Make room and try again.")
    return StackError(
        f"{artifact.filename} could not be fetched ({type(error).__name__}).",
        "Check the connection to Maven Central and try again; what was fetched is kept.",
    )


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """One process at a time; the kernel lets go of the lock when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
