"""Services killed in the middle of payments' steps: `payments chaos payments` kills, the demo and reconcile judge."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from ops.chaos.payments.plan import SERVICES, plan
from tests.local_servers import Servers, payments

KILLS = 5  # one of each service
SEED = os.environ.get("PAYMENTS_TEST_SEED", "20")
CHAOS_S = 400.0


def test_a_whole_run_comes_to_every_failpoint_once() -> None:
    whole = plan(seed=1)
    assert Counter(kill[:2] for kill in whole) == Counter(
        (name, point) for name in SERVICES for point in SERVICES[name]
    )
    assert plan(seed=1) == whole != plan(seed=2)
    assert {kill.service for kill in plan(seed=3, most=KILLS)} == set(SERVICES)


@pytest.mark.timeout(CHAOS_S + 30)
def test_services_killed_at_failpoints_lose_and_double_nothing(stack: Servers) -> None:
    arguments = ("--seed", SEED, "--kills", str(KILLS))
    chaos = payments("chaos", "payments", *arguments, home=stack.home.root, timeout=CHAOS_S)
    assert chaos.returncode == 0, chaos.stdout + chaos.stderr
    report = json.loads(chaos.stdout)
    assert report["violations"] == []
    assert report["not_reached"] == []
    assert len(report["kills"]) == KILLS
