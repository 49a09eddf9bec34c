"""The offsets that a lane starts from, asked while the broker dies."""

from __future__ import annotations

import threading
import time

from ops.chaos.engine.cluster import own_cluster
from streams.exactly_once.clients import Clients
from streams.exactly_once.restore import committed_offsets

ASKERS = 4
ANSWERS_AFTER = 20
BACK_S = 90.0


def test_the_question_survives_kill_9_of_the_coordinator() -> None:
    """librdkafka's admin client, asked the same, ended the process in one of three kills."""
    with own_cluster() as cluster:
        answers = [0] * ASKERS
        stopping = threading.Event()

        def ask(number: int) -> None:
            while not stopping.is_set():
                found = committed_offsets(
                    Clients(), {**cluster.config(), "group.id": "nobody"}, [("nowhere", 0)], lambda: True
                )
                assert found == {}
                answers[number] += 1

        def until_answered() -> None:
            wanted = [count + ANSWERS_AFTER for count in answers]
            deadline = time.monotonic() + BACK_S
            while any(count < enough for count, enough in zip(answers, wanted, strict=True)):
                assert time.monotonic() < deadline, f"answers: {answers}, wanted: {wanted}"
                time.sleep(0.1)

        askers = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(ASKERS)]
        for asker in askers:
            asker.start()
        try:
            until_answered()
            for _ in range(2):
                cluster.kill_broker(0)
                until_answered()
        finally:
            stopping.set()
            for asker in askers:
                asker.join()
