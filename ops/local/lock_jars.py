"""Resolve the servers' coordinates and write `ops/locks/jars.json`: `python -m ops.local.lock_jars`, for maintainers.

Also the place where server versions are chosen: the newest stable ones that run on the JRE of the wheel (Java 17).
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ops.local.jars import LOCK_FILE, Lock, LockedArtifact, LockedServer, sha256_of, tree_digest

KAFKA, LOG4J = "4.3.1", "2.25.4"  # Kafka 4.4.0 was released without kafka-tools
CASSANDRA = "5.0.9"
APICURIO = "3.0.9"  # 3.1 and later want Java 21, which Cassandra cannot use

RESOLVED = {
    "kafka": [
        f"org.apache.kafka:kafka_2.13:{KAFKA}",
        f"org.apache.kafka:kafka-tools:{KAFKA}",
    ],
    "cassandra": [f"org.apache.cassandra:cassandra-all:{CASSANDRA}"],
}
# Kafka's jars log through SLF4J to nowhere; resolved apart, or its parent would manage Kafka's own versions.
SINGLE = {"kafka": [f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}"]}
ARCHIVES = {"schema-registry": f"io.apicurio:apicurio-registry-app:{APICURIO}:tar.gz:all"}


def main() -> None:
    from jgo.maven import MavenContext

    context = MavenContext(timeout=60)
    servers = {name: _resolve(context, roots, SINGLE.get(name, [])) for name, roots in RESOLVED.items()}
    servers |= {name: _archive(context, root) for name, root in ARCHIVES.items()}
    LOCK_FILE.write_bytes(msgspec.json.format(msgspec.json.encode(Lock(format=1, servers=servers)), indent=1) + b"\n")


def _resolve(context: Any, roots: list[str], single: list[str]) -> LockedServer:
    inputs, transitive = context.resolver.resolve([context.create_dependency(root) for root in roots])
    chosen = [*inputs, *transitive, *(context.create_dependency(root) for root in single)]
    artifacts = [_locked(dependency.artifact) for dependency in chosen if dependency.type == "jar"]
    artifacts = sorted(set(artifacts), key=lambda artifact: (artifact.group, artifact.filename))
    assert len({artifact.filename for artifact in artifacts}) == len(artifacts), "two artifacts with one file name"
    return LockedServer(roots=[*roots, *single], artifacts=artifacts)


def _archive(context: Any, root: str) -> LockedServer:
    group, name, version, packaging, classifier = root.split(":")
    artifact = context.project(group, name).at_version(version).artifact(classifier, packaging)
    with tempfile.TemporaryDirectory() as tree:
        with tarfile.open(artifact.resolve()) as tar:
            tar.extractall(tree, filter="data")
        digest = tree_digest(Path(tree))
    return LockedServer(roots=[root], artifacts=[msgspec.structs.replace(_locked(artifact), tree_sha256=digest)])


def _locked(artifact: Any) -> LockedArtifact:
    return LockedArtifact(
        group=artifact.groupId,
        name=artifact.artifactId,
        version=artifact.version,
        classifier=artifact.classifier,
        packaging=artifact.packaging,
        sha256=sha256_of(artifact.resolve()),
    )


if __name__ == "__main__":
    main()
