"""The producer of commands and the reader of replies while Kafka is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from api.admission import Backlog
from api.commands import CommandProducer
from api.problems import Problem
from api.replies import ReplyBoard, ReplyReader
from ops.local.ca import ensure_certificates, tls_files
from ops.local.layout import Home
from ops.runtime.settings import Settings
from tests.unit.api.platform_in_memory import api_settings
from tests.unit.domain.payments_in_states import create


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    ensure_certificates(Home(tmp_path), ("payment-api",))
    ca, cert, key = tls_files(Home(tmp_path), "payment-api")
    return api_settings(tls_ca=ca, tls_cert=cert, tls_key=key)  # its bootstrap server is a closed port


async def test_a_command_that_cannot_be_delivered_is_said_to_be_so_and_is_never_durable(settings: Settings) -> None:
    failures: list[BaseException] = []
    producer = CommandProducer(settings, lambda _command: b"x", failures.append)
    await producer.start()
    undelivered = asyncio.Semaphore(0)
    deliveries = [producer.send(create(payment_id=f"pay_{n}"), undelivered.release) for n in range(20)]
    async with asyncio.timeout(5):  # librdkafka looks for what has waited too long once a second
        for _ in deliveries:
            await undelivered.acquire()
    assert not any(delivery.is_durable for delivery in deliveries)
    await producer.stop()
    assert failures == []


async def test_more_commands_than_may_wait_to_be_sent_are_refused(settings: Settings) -> None:
    failures: list[BaseException] = []
    producer = CommandProducer(settings, lambda _command: b"x", failures.append)
    await producer.start()
    for n in range(10_000):
        producer.send(create(payment_id=f"pay_{n}"), lambda: None)
    with pytest.raises(Problem) as refused:
        producer.send(create(payment_id="pay_more"), lambda: None)
    assert refused.value.code == "overloaded"
    await producer.stop()
    assert failures == []


async def test_the_reader_starts_without_kafka_and_says_that_it_cannot_listen_yet(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.replies.START_TIMEOUT_S", 0.3)
    monkeypatch.setattr("api.replies.ATTACH_TIMEOUT_S", 0.2)
    board = ReplyBoard(Backlog(settings))
    failures: list[BaseException] = []
    reader = ReplyReader(settings, lambda _data: pytest.fail("no reply can come"), board, failures.append)
    await reader.start()
    assert not board.is_listening
    with pytest.raises(ConnectionError):
        await reader.check()
    await reader.stop()
    assert failures == []
