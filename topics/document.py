"""The catalogue as a page for people: topics/README.md is exactly this, and a test keeps it so."""

from __future__ import annotations

from collections.abc import Iterable

from topics import access, catalog
from topics.catalog import Topic

HEAD = """\
# Topics

Made from `topics/catalog.py` by `payments topics ls --markdown`; change that file, not this one.

Keys are UTF-8. Values are Avro in the Confluent wire format: a zero byte, the schema's id in the registry (four bytes,
big-endian), the Avro body. Every record type has a schema of its own, subject `<topic>-<Record>`, source
`avro/<folder>/<Record>.avsc`; the id in a record says which one it is. Partitioner: murmur2 of the key, as in Java's
client (librdkafka: `partitioner=murmur2_random`). Timestamps are the brokers' append time.

Partitions are those of the local stack. One service may write a topic; `auditor` may read all of them.
"""


LETTERS = """\
What a reader cannot handle, with its place and the reason. The writer of the source topic may read them, and publishes
them again when an operator asks it to: `payments dlq` (decision 0013).

"""


def markdown() -> str:
    """The whole page, ending with a newline."""
    kinds = catalog.all_topics()
    named = set(catalog.TOPICS)
    letters = [topic for topic in kinds if topic.records == ("DeadLetter",)]
    logs = [topic for topic in kinds if topic.name.endswith("-changelog")]
    sections = [
        HEAD,
        "## Records\n\n" + _table(topic for topic in kinds if topic in named),
        "## Dead letters\n\n" + LETTERS + _short(letters),
        "## Changelogs\n\nTables of the Faust apps, each private to its app.\n\n" + _short(logs),
        "## Grants\n\nWhat each service may do in Kafka besides reading and writing the topics above.\n\n" + _grants(),
    ]
    return "\n".join(sections)


def kept(topic: Topic) -> str:
    """How long records stay."""
    match topic.retention_ms:
        case catalog.COMPACTED:
            return "compacted"
        case catalog.FOREVER_MS:
            return "for ever"
        case ms if ms % catalog.DAY_MS == 0:
            return f"{ms // catalog.DAY_MS} d"
        case ms:
            return f"{ms // catalog.HOUR_MS} h"


def _table(topics: Iterable[Topic]) -> str:
    lines = ["| Topic | Key | Records | Partitions | Kept | Writer | Readers |", "|---|---|---|---|---|---|---|"]
    for topic in topics:
        records = ", ".join(f"[{name}](../avro/{topic.schema_folder}/{name}.avsc)" for name in topic.records)
        who = f"{topic.writer} | {', '.join(topic.readers)}"
        name = f"`{topic.name}`<br>{topic.purpose}"
        lines.append(f"| {name} | `{topic.key}` | {records} | {topic.partitions} | {kept(topic)} | {who} |")
    return "\n".join(lines) + "\n"


def _short(topics: Iterable[Topic]) -> str:
    lines = ["| Topic | Record | Partitions | Kept | Writer |", "|---|---|---|---|---|"]
    for topic in topics:
        records = ", ".join(f"[{name}](../avro/{topic.schema_folder}/{name}.avsc)" for name in topic.records)
        lines.append(
            f"| `{topic.name}` | {records or 'private'} | {topic.partitions} | {kept(topic)} | {topic.writer} |"
        )
    return "\n".join(lines) + "\n"


def _grants() -> str:
    lines = ["| Principal | May | On |", "|---|---|---|"]
    others = [g for g in access.grants() if g.resource != "topic" or g.name == access.EVERY]
    for grant in sorted(others):
        name = grant.name + ("..." if grant.pattern == "prefixed" else "")
        resource = grant.resource.replace("_", " ")
        lines.append(f"| `{grant.principal}` | {grant.operation.replace('_', ' ')} | {resource} `{name}` |")
    return "\n".join(lines) + "\n"
