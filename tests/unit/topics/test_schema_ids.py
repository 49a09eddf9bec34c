"""A service starts without the registry when it has started before, and only with ids of the very same schemas."""

from __future__ import annotations

import json
import ssl
from pathlib import Path

import pytest

from topics.catalog import find
from topics.registry import Registry, RegistryUnavailable
from topics.schema_ids import _key, known_ids  # the file's own form is what this test is about
from topics.schemas import subjects

WANTED = subjects((find("payments.commands"),))


@pytest.fixture
def registry_away() -> Registry:
    """Port 1 of loopback: nothing listens there."""
    return Registry("https://127.0.0.1:1", ssl.create_default_context())


def test_the_registry_that_is_away_is_named(registry_away: Registry) -> None:
    with pytest.raises(RegistryUnavailable, match=r"https://127\.0\.0\.1:1 does not answer"):
        registry_away.schema(1)


def test_ids_of_the_last_start_serve_while_the_registry_is_away(registry_away: Registry, tmp_path: Path) -> None:
    file = tmp_path / "schema-ids.json"
    file.write_text(json.dumps({_key(subject): number for number, subject in enumerate(WANTED, 1)}))
    assert known_ids(registry_away, WANTED, file) == {subject.name: n for n, subject in enumerate(WANTED, 1)}


def test_the_id_of_another_version_of_a_schema_does_not_serve(registry_away: Registry, tmp_path: Path) -> None:
    file = tmp_path / "schema-ids.json"
    changed = WANTED[0]._replace(schema=WANTED[0].schema | {"doc": "changed"})
    file.write_text(json.dumps({_key(changed): 1, _key(WANTED[1]): 2}))
    assert known_ids(registry_away, WANTED, file) == {WANTED[1].name: 2}


@pytest.mark.parametrize("content", ["", '{"a": '], ids=["empty", "half written"])
def test_a_broken_file_is_no_file(registry_away: Registry, tmp_path: Path, content: str) -> None:
    file = tmp_path / "schema-ids.json"
    file.write_text(content)
    assert known_ids(registry_away, WANTED, file) == {}
