"""Admission by backlog: commands are refused when one more would wait too long, and told honestly for how long."""

from __future__ import annotations

import msgspec
import pytest

from api.admission import OVERTAKEN_S, RETRY_AFTER_MAX_S, Backlog
from api.problems import Problem
from ops.runtime.settings import Settings
from tests.unit.api.platform_in_memory import Platform, api_settings

SETTINGS = api_settings(reply_timeout_s=2.0)
COMMANDS_FREE, COMMANDS_MAX = SETTINGS.commands_waiting_free, SETTINGS.commands_waiting_max
LATE_S, WAIT_MAX_S = SETTINGS.reply_timeout_s, SETTINGS.command_wait_max_s


class Pipeline:
    """Commands come and are answered at steady rates, in steps of 0.1 s."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.now = 0.0
        self.backlog = Backlog(settings, lambda: self.now)
        self.waiting: list[str] = []
        self.refused: list[int] = []
        self._made = 0

    def run(self, seconds: float, *, sent_per_s: int, answered_per_s: int) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            for _ in range(sent_per_s // 10):
                self._send()
            for _ in range(min(answered_per_s // 10, len(self.waiting))):
                self.backlog.answered(self.waiting.pop(0))

    def _send(self) -> None:
        try:
            self.backlog.admit()
        except Problem as problem:
            self.refused.append(int(problem.headers["Retry-After"]))
            return
        self._made += 1
        self.waiting.append(str(self._made))
        self.backlog.sent(str(self._made))


def test_a_pipeline_that_keeps_up_refuses_nothing_however_bursty() -> None:
    pipeline = Pipeline()
    for _ in range(20):
        pipeline.run(1, sent_per_s=300, answered_per_s=200)
        pipeline.run(2, sent_per_s=0, answered_per_s=200)
    assert pipeline.refused == []


def test_an_overloaded_pipeline_has_a_bounded_queue_and_no_command_waits_much_longer_than_allowed() -> None:
    pipeline = Pipeline()
    pipeline.run(60, sent_per_s=500, answered_per_s=100)
    assert len(pipeline.backlog) <= 100 * WAIT_MAX_S + 50  # of 24,000 more than it can answer
    assert pipeline.backlog.oldest_s() <= WAIT_MAX_S + 1
    assert set(pipeline.refused) <= set(range(7, 11))
    pipeline.run(pipeline.refused[-1], sent_per_s=0, answered_per_s=100)  # waiting as told
    before = len(pipeline.refused)
    pipeline.run(0.1, sent_per_s=10, answered_per_s=100)
    assert len(pipeline.refused) == before


def test_an_outage_is_ridden_out_up_to_a_fixed_number_and_afterwards_the_queue_tells_how_long() -> None:
    pipeline = Pipeline()
    pipeline.run(10, sent_per_s=100, answered_per_s=100)
    pipeline.run(30, sent_per_s=200, answered_per_s=0)
    assert pipeline.refused == []  # creates go on as 202
    pipeline.run(60, sent_per_s=200, answered_per_s=0)
    assert len(pipeline.backlog) == COMMANDS_MAX
    assert set(pipeline.refused) <= set(range(1, int(RETRY_AFTER_MAX_S) + 1))
    pipeline.refused.clear()
    pipeline.run(5, sent_per_s=200, answered_per_s=1_000)
    assert pipeline.refused
    pipeline.run(15, sent_per_s=100, answered_per_s=1_000)
    pipeline.refused.clear()
    pipeline.run(5, sent_per_s=100, answered_per_s=1_000)
    assert pipeline.refused == []


def test_few_commands_are_never_too_many_however_slow_the_answers() -> None:
    pipeline = Pipeline()
    pipeline.run(30, sent_per_s=20, answered_per_s=10)
    assert len(pipeline.backlog) < COMMANDS_FREE
    assert pipeline.refused == []


def test_how_long_a_queue_may_be_is_a_setting() -> None:
    patient = Pipeline(msgspec.structs.replace(SETTINGS, command_wait_max_s=30.0))
    patient.run(60, sent_per_s=500, answered_per_s=100)
    assert 100 * WAIT_MAX_S + 50 < len(patient.backlog) <= 100 * 30 + 50
    small = Pipeline(msgspec.structs.replace(SETTINGS, commands_waiting_max=COMMANDS_FREE))
    small.run(10, sent_per_s=200, answered_per_s=0)
    assert len(small.backlog) == COMMANDS_FREE


def test_a_reply_that_never_comes_is_forgotten_once_overtaken() -> None:
    pipeline = Pipeline()
    pipeline.backlog.sent("lost")
    pipeline.run(OVERTAKEN_S + 1, sent_per_s=10, answered_per_s=10)
    assert len(pipeline.backlog) == 0
    assert pipeline.refused == []


def test_a_command_that_did_not_become_durable_does_not_wait() -> None:
    backlog = Backlog(SETTINGS, lambda: 0.0)
    backlog.sent("a")
    backlog.withdrawn("a")
    backlog.answered("a")
    assert (len(backlog), backlog.oldest_s()) == (0, 0.0)


async def test_an_overloaded_platform_refuses_every_operation_and_reads_go_on(platform: Platform) -> None:
    payment_id = (await platform.create("k")).json["payment_id"]
    backlog = platform.board.backlog
    for number in range(COMMANDS_FREE + 2):
        backlog.sent(f"waiting-{number}")
    platform.seconds += LATE_S + 6
    backlog.answered("waiting-0")
    published = len(platform.log.published)
    for path, body in (("", None), ("/confirm", {"payment_method_token": "pm_x"}), ("/cancel", {}), ("/refunds", {})):
        answer = (
            await platform.call("POST", f"/payments/{payment_id}{path}", body, idempotency_key="x")
            if path
            else await platform.create()
        )
        assert (answer.status, answer.code) == (429, "overloaded"), path
        assert int(answer.headers["Retry-After"]) > WAIT_MAX_S
    assert len(platform.log.published) == published
    assert (await platform.call("GET", f"/payments/{payment_id}")).status == 200


@pytest.mark.parametrize("failure", ["away", "silent"])
async def test_what_is_sent_counts_until_it_is_answered(platform: Platform, failure: str) -> None:
    await platform.create()
    assert len(platform.board.backlog) == 0
    setattr(platform.log, failure, True)
    assert (await platform.create()).status == {"away": 503, "silent": 202}[failure]
    assert len(platform.board.backlog) == {"away": 0, "silent": 1}[failure]
