"""Staged effects: what a handler sees of them, and what is left when it fails."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.exactly_once.errors import EffectRefused, VersionConflict
from streams.exactly_once.layers import Layer, Layers, Row, Stage
from streams.exactly_once.records import Output, Record
from streams.exactly_once.table_spec import TableSpec, prefix_end
from streams.exactly_once.testing import Bench, MemoryBase

ROWS = TableSpec("rows", encode=lambda value: str(value).encode(), decode=int, version=lambda value: int(value))
OUT = Output("out", str.encode)


def stage_over(layers: Layers, outputs: frozenset[str] | None = None) -> Stage:
    return Stage(layers, partition=0, highest_timestamp_ms=0, timer_table=None, outputs=outputs)


def test_a_handler_reads_what_it_has_staged_itself() -> None:
    stage = stage_over(Layers(MemoryBase()))
    stage.put(ROWS, b"a", 1)
    assert stage.get(ROWS, b"a") == 1
    stage.delete(ROWS, b"a")
    assert stage.get(ROWS, b"a") is None


def test_a_versioned_put_refuses_another_version() -> None:
    stage = stage_over(Layers(MemoryBase()))
    stage.put(ROWS, b"a", 1, expected_version=0)
    with pytest.raises(VersionConflict, match="version 1, expected 0"):
        stage.put(ROWS, b"a", 1, expected_version=0)
    stage.put(ROWS, b"a", 2, expected_version=1)


def test_an_undeclared_output_and_an_oversize_record_are_refused_where_they_are_staged() -> None:
    stage = stage_over(Layers(MemoryBase()), frozenset({"out"}))
    with pytest.raises(EffectRefused, match="not declared"):
        stage.send(Output("other", str.encode), "x", key=b"k")
    with pytest.raises(EffectRefused, match="1000001 bytes"):
        stage.send(OUT, "x" * 1_000_000, key=b"k")


def test_a_timer_of_an_agent_without_timers_is_refused() -> None:
    with pytest.raises(EffectRefused, match="timers=True"):
        stage_over(Layers(MemoryBase())).set_timer(b"k", "t", 1)


class NoBase(MemoryBase):
    """A base whose rows are all of another time: what is read from it is seen."""

    def get(self, table: TableSpec, key: bytes) -> str:
        return "from the base"


def commit(layers: Layers, rows: dict[bytes, Row]) -> None:
    layers.promoted.absorb(Layer({ROWS: rows}))
    layers.begin_commit()
    layers.end_commit()


def test_rows_committed_last_are_served_as_they_were_written_and_make_room_for_newer_ones() -> None:
    layers, big = Layers(NoBase()), b"x" * 10_000
    commit(layers, {b"%03d" % number: Row(number, big) for number in range(200)})
    assert layers.get(ROWS, b"199") == 199
    assert layers.get(ROWS, b"000") == "from the base", "two megabytes were kept"
    for number in range(200, 400):
        commit(layers, {b"%03d" % number: Row(number, big)})
    assert layers.get(ROWS, b"399") == 399
    assert layers.get(ROWS, b"199") == "from the base"


def test_what_was_deleted_or_written_anew_hides_what_is_kept_of_it() -> None:
    layers, big = Layers(NoBase()), b"x" * 300_000
    commit(layers, {b"a": Row(1, b"1"), b"b": Row(1, b"1")})
    for number in range(2):  # the rows above come to lie in the older generation
        commit(layers, {b"big%d" % number: Row(0, big)})
    assert layers.get(ROWS, b"a") == 1
    commit(layers, {b"a": Row(None, None), b"b": Row(2, b"2")})
    assert (layers.get(ROWS, b"a"), layers.get(ROWS, b"b")) == (None, 2)
    commit(layers, {b"b": Row(3, b"3"), **{b"%04d" % number: Row(0, big) for number in range(10)}})
    assert layers.get(ROWS, b"b") == "from the base", "more was written at once than is kept: older rows are not seen"
    assert layers.get(ROWS, b"a") == "from the base"


def test_prefix_end_is_the_first_key_behind_the_prefix() -> None:
    assert prefix_end(b"ab") == b"ac"
    assert prefix_end(b"a\xff") == b"b"


Actions = st.sampled_from(["put", "delete", "promote", "commit"])
Operations = st.lists(st.tuples(Actions, st.integers(0, 9), st.integers(0, 99)), max_size=60)
KEYS = [bytes([number]) for number in range(10)]


@given(Operations)
def test_layers_over_a_base_read_and_scan_as_one_map_would(operations: list[tuple[str, int, int]]) -> None:
    base = MemoryBase()
    layers = Layers(base)
    stage = stage_over(layers)
    model: dict[bytes, int] = {}
    for action, number, value in operations:
        key = bytes([number])
        if action == "put":
            stage.put(ROWS, key, value)
            model[key] = value
        elif action == "delete":
            stage.delete(ROWS, key)
            model.pop(key, None)
        elif action == "promote":
            layers.promoted.absorb(stage.layer)
            stage = stage_over(layers)
        elif layers.promoted:
            for row_key, row in layers.begin_commit().rows[ROWS].items():
                if row.encoded is None:
                    base.rows.setdefault("rows", {}).pop(row_key, None)
                else:
                    base.rows.setdefault("rows", {})[row_key] = row.encoded
            layers.end_commit()
        assert [stage.get(ROWS, key) for key in KEYS] == [model.get(key) for key in KEYS]
        assert list(stage.scan(ROWS, b"\x02", b"\x08")) == sorted(
            (key, value) for key, value in model.items() if b"\x02" <= key < b"\x08"
        )


def test_timers_fire_in_order_of_due_time_once_and_a_moved_one_only_at_its_new_time() -> None:
    bench = Bench(now_ms=1_000)

    def arm(batch: object, state: Stage, effects: Stage) -> None:
        effects.set_timer(b"k", "late", 3_000, b"L")
        effects.set_timer(b"k", "early", 2_000, b"E")
        effects.set_timer(b"other", "moved", 1_500)
        effects.set_timer(b"other", "moved", 2_500, b"M")
        effects.set_timer(b"k", "gone", 2_100)
        effects.cancel_timer(b"k", "gone")

    bench.decide(arm, bench.record("in", b"k", None))
    assert bench.advance(999) == []
    assert [record.value.payload for record in bench.advance(1)] == [b"E"]
    assert [record.value.payload for record in bench.advance(10_000)] == [b"M", b"L"]
    assert bench.advance(10_000) == []


def test_a_handler_that_raises_leaves_no_trace() -> None:
    bench = Bench()

    def fail(batch: object, state: Stage, effects: Stage) -> None:
        effects.put(ROWS, b"a", 1)
        effects.send(OUT, "x", key=b"a")
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - any message
        bench.decide(fail, bench.record("in", b"a", None))
    assert bench.sent == []
    assert bench.rows(ROWS) == []


def test_a_batch_writes_rows_under_any_key() -> None:
    """faust-streaming 497: a table could not be written inside `take`, whose batch is no event's."""
    bench = Bench()

    def totals(batch: Sequence[Record], state: Stage, effects: Stage) -> None:
        for record in batch:
            effects.put(ROWS, b"total", (state.get(ROWS, b"total") or 0) + record.value)
            effects.put(ROWS, record.key, record.value)

    bench.decide(totals, bench.record("in", b"a", 1), bench.record("in", b"b", 2))
    assert bench.rows(ROWS) == [(b"a", 1), (b"b", 2), (b"total", 3)]
