"""The producer of commands and the reader of replies while Kafka is not there."""

from __future__ import annotations

import asyncio
import time
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


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    ensure_certificates(Home(tmp_path), ("payment-api",))
    ca, cert, key = tls_files(Home(tmp_path), "payment-api")
    return api_settings(tls_ca=ca, tls_cert=cert, tls_key=key)  # its bootstrap server is a closed port


async def test_a_command_that_cannot_be_made_durable_is_refused_within_two_seconds(settings: Settings) -> None:
    failures: list[BaseException] = []
    producer = CommandProducer(settings, lambda _record, _fields: b"x", failures.append)
    await producer.start()
    began = time.monotonic()
    answers = await asyncio.gather(
        *(producer.publish("CreatePayment", f"pay_{n}", {}, 2.0) for n in range(20)), return_exceptions=True
    )
    assert time.monotonic() - began < 2.5
    assert [getattr(answer, "code", answer) for answer in answers] == ["unavailable"] * 20
    with pytest.raises(Problem):
        await producer.publish("CreatePayment", "pay_x", {}, 0.05)
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
