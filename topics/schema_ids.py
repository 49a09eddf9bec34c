"""Which ids our schemas have: asked of the registry when a service starts, kept in a file for a start without it.

A service must know the ids of all it writes before it handles a record; ids of what it reads may come later.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ops.runtime.logs import logger
from ops.runtime.settings import Settings
from ops.runtime.tls import client_context
from topics import catalog
from topics.codec import Codec
from topics.registry import Registry, RegistryUnavailable, find_ids
from topics.schemas import Subject, subjects

FILE = "schema-ids.json"


def open_codec(settings: Settings) -> Codec:
    """The codec of the service that `settings` name, for every topic that it reads or writes.

    Raises RegistryUnavailable when an id of what it writes is neither in the registry nor known from an earlier start.
    """
    registry = Registry(settings.schema_registry_url, client_context(settings))
    topics = tuple(t for t in catalog.all_topics() if settings.service in (t.writer, *t.readers))
    try:
        ids = known_ids(registry, subjects(topics), settings.state_dir / FILE)
    finally:
        registry.close()
    written = [s.name for s in subjects(tuple(t for t in topics if t.writer == settings.service))]
    if missing := [name for name in written if name not in ids]:
        raise RegistryUnavailable(
            f"schema {missing[0]} (one of {len(missing)}) is not registered: run `payments schema register`"
        )

    def fetch(schema_id: int) -> str | None:
        try:
            return registry.schema(schema_id)
        finally:
            registry.close()  # an id that is new to us is rare: no connection is kept for the next

    return Codec(ids, fetch)


def known_ids(registry: Registry, wanted: tuple[Subject, ...], file: Path) -> dict[str, int]:
    """Ids by subject name, from the registry, or from the file while the registry does not answer.

    The file is written when it differs from what the registry said. An id counts only for the very schema that it was
    found for, so a new release never writes under the id of an old schema.
    """
    kept = _read(file)
    try:
        ids = find_ids(registry, wanted)
    except RegistryUnavailable as error:
        logger().warning("schema registry is away, using the schema ids of the last start", error=str(error))
        return {s.name: kept[key] for s in wanted if (key := _key(s)) in kept}
    found = {_key(subject): ids[subject.name] for subject in wanted if subject.name in ids}
    if found != kept:
        _write(file, found)
    return ids


def _key(subject: Subject) -> str:
    return f"{subject.name} {hashlib.sha256(subject.text.encode()).hexdigest()}"


def _read(file: Path) -> dict[str, int]:
    """What the file says; nothing when it is not there or was not written to its end."""
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        logger().warning("the file of schema ids is unreadable and will be written anew", file=str(file))
        return {}
    return {str(key): int(value) for key, value in content.items()}


def _write(file: Path, ids: dict[str, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(ids, indent=1, sort_keys=True), encoding="utf-8")
    unfinished.replace(file)
