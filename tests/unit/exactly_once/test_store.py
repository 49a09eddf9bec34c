"""A lane's RocksDB: rows and offsets together, and state that may not be trusted is rebuilt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.exactly_once.errors import StateInUse
from streams.exactly_once.layers import Row
from streams.exactly_once.store import LaneStore
from streams.exactly_once.table_spec import TableSpec, prefix_end

ROOT = Path(__file__).parents[3]
ROWS = TableSpec("rows", encode=bytes, decode=bytes)
OTHER = TableSpec("rows2", encode=bytes, decode=bytes)


def test_state_that_is_set_aside_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(2):  # the second one takes the place of the first
        store = filled(tmp_path / "0")
        store.set_aside()
        assert store.get(ROWS, b"a1") is None
        assert store.offset("rows-changelog") is None
        assert store.was_rebuilt
        store.close()
    aside = LaneStore(tmp_path / "0.set-aside")
    assert aside.get(ROWS, b"a1") == b"1"
    assert aside.offset("rows-changelog") == 7
    aside.close()


def filled(path: Path) -> LaneStore:
    store = LaneStore(path)
    rows = {
        ROWS: {b"a1": Row(b"1", b"1"), b"a2": Row(b"2", b"2"), b"b": Row(b"3", b"3")},
        OTHER: {b"a1": Row(b"9", b"9")},
    }
    store.apply(rows, {"rows-changelog": 7})
    return store


def test_rows_and_their_offset_survive_a_restart_together(tmp_path: Path) -> None:
    filled(tmp_path / "lane").close()
    store = LaneStore(tmp_path / "lane")
    assert store.get(ROWS, b"a2") == b"2"
    assert store.offset("rows-changelog") == 7
    assert not store.was_rebuilt


def test_a_scan_stays_in_its_table_and_its_range(tmp_path: Path) -> None:
    store = filled(tmp_path / "lane")
    assert list(store.scan(ROWS, b"a", prefix_end(b"a"))) == [(b"a1", b"1"), (b"a2", b"2")]
    assert list(store.scan(OTHER, b"", b"\xff")) == [(b"a1", b"9")]


def test_a_scan_keeps_its_bounds_however_long_it_is_open(tmp_path: Path) -> None:
    store = LaneStore(tmp_path / "lane")
    store.apply({ROWS: {b"%03d" % number: Row(b"v", b"v") for number in range(300)}}, {})
    scans = [store.scan(ROWS, b"100", b"%03d" % stop) for stop in range(110, 290)]
    assert [next(scan)[0] for scan in scans] == [b"100"] * 180
    _others = [os.urandom(16) for _ in range(10_000)]  # where a bound would lie that RocksDB no longer owns
    assert [len(list(scan)) for scan in scans] == list(range(9, 189))


def test_a_deleted_row_is_gone(tmp_path: Path) -> None:
    store = filled(tmp_path / "lane")
    store.apply({ROWS: {b"a1": Row(None, None)}}, {"rows-changelog": 8})
    assert store.get(ROWS, b"a1") is None
    assert store.offset("rows-changelog") == 8


def test_a_row_is_read_once_for_two_looks_and_again_after_a_write(tmp_path: Path) -> None:
    decoded: list[bytes] = []

    def decode(encoded: bytes) -> bytes:
        decoded.append(encoded)
        return encoded

    table = TableSpec("counted", encode=bytes, decode=decode)
    store = LaneStore(tmp_path / "lane")
    store.restore(table, [(b"a", b"1"), (b"b", b"2")], {})
    assert [store.get(table, b"a"), store.get(table, b"a"), store.get(table, b"b")] == [b"1", b"1", b"2"]
    assert decoded == [b"1", b"2"]
    store.restore(table, [(b"b", b"3")], {})
    assert store.get(table, b"b") == b"3"


def test_a_corrupt_database_starts_empty_so_that_the_changelog_rebuilds_it(tmp_path: Path) -> None:
    filled(tmp_path / "lane").close()
    (tmp_path / "lane" / "CURRENT").write_text("nonsense\n")
    store = LaneStore(tmp_path / "lane")
    assert store.was_rebuilt
    assert store.offset("rows-changelog") is None
    assert store.get(ROWS, b"a1") is None


def test_state_older_than_the_tombstones_of_its_changelog_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "lane").close()
    later = time.time() + 13 * 3600
    monkeypatch.setattr("streams.exactly_once.store.time.time", lambda: later)
    assert LaneStore(tmp_path / "lane").was_rebuilt


HOLDER = """
import sys
from pathlib import Path
from streams.exactly_once.store import LaneStore
store = LaneStore(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
store.close()
"""


def test_a_database_that_another_process_has_open_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lane"
    filled(path).close()
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StateInUse, match="another process"):
            LaneStore(path)
        holder.communicate()
    assert LaneStore(path).get(ROWS, b"b") == b"3"
