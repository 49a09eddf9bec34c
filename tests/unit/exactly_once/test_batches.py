"""Records of a transaction become batches: in their order, with sequence numbers that go on from batch to batch."""

from __future__ import annotations

import random

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as murmur2_of_kafka_python

from streams.exactly_once.producer.batches import BATCH_MAX_BYTES, Batches, murmur2, partition_of

HEADERS = [("trace", b"1")]


def test_records_keep_their_order_and_sequence_over_batches() -> None:
    batches = Batches(7, 3, 1_000)
    values = [random.Random(number).randbytes(BATCH_MAX_BYTES // 3) for number in range(10)]
    for number, value in enumerate(values):
        batches.append("t", 1, b"%d" % number, value, HEADERS)
    batches.append("t", 0, None, None, [])
    taken = batches.take()

    assert taken.keys() == {("t", 1), ("t", 0)}
    sequence = 0
    found = []
    for encoded in taken["t", 1]:
        batch = DefaultRecordBatch(encoded)
        assert batch.validate_crc()
        assert batch.is_transactional
        assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (7, 3, sequence)
        records = list(batch)
        assert batch.last_offset_delta == len(records) - 1
        sequence += len(records)
        found += [(record.key, record.value, record.headers, record.timestamp) for record in records]
    assert found == [(b"%d" % number, value, HEADERS, 1_000) for number, value in enumerate(values)]
    (tombstone,) = DefaultRecordBatch(taken["t", 0][0])
    assert (tombstone.key, tombstone.value) == (None, None)
    assert batches.take() == {}


def test_a_record_larger_than_a_batch_has_one_of_its_own() -> None:
    batches = Batches(7, 3, 1_000)
    for size in (1, BATCH_MAX_BYTES + 1, 1):
        batches.append("t", 0, b"k", b"v" * size, [])
    sizes = [[len(record.value) for record in DefaultRecordBatch(encoded)] for encoded in batches.take()["t", 0]]
    assert sizes == [[1], [BATCH_MAX_BYTES + 1], [1]]


@given(st.binary(max_size=70))
def test_murmur2_is_kafkas(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_kafka_python(key) & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "value"), [(b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107)])
def test_murmur2_of_keys_of_kafkas_own_tests(key: bytes, value: int) -> None:
    assert murmur2(key) == value & 0xFFFFFFFF
    assert partition_of(key, 6) == (value & 0x7FFFFFFF) % 6
