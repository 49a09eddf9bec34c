"""The whole platform as `payments up` starts it: every service ready, two merchants to try it with."""

from __future__ import annotations

import json
import os

from ops.local.layout import SERVERS, SERVICES
from tests.local_servers import Servers, payments


def test_every_service_is_ready_and_small(stack: Servers) -> None:
    document = stack.status()

    assert document["ready"] is True
    assert {row["name"] for row in document["services"]} == {*SERVICES, *SERVERS}
    assert sum(row["rss_mb"] for row in document["services"]) < 3.5 * 1024


def test_no_process_preempts_another_when_it_wakes(stack: Servers) -> None:
    policies = {row["name"]: os.sched_getscheduler(row["pid"]) for row in stack.status()["services"]}

    assert policies == dict.fromkeys([*SERVICES, *SERVERS], os.SCHED_BATCH)


def test_two_merchants_are_there_to_try_it_with(stack: Servers) -> None:
    merchants = stack.merchants

    assert [merchant["name"] for merchant in merchants] == ["Demo Shop", "Second Shop"]
    for merchant in merchants:
        assert merchant["merchant_id"].startswith("mer_")
        assert merchant["secret_key"].startswith("sk_test_")
        assert merchant["publishable_key"].startswith("pk_test_")
    assert stack.home.merchants_file.stat().st_mode & 0o777 == 0o600


def test_status_prints_headings_and_keys_whole_though_it_is_piped(stack: Servers) -> None:
    words = payments("status", home=stack.home.root).stdout.split()

    assert "…" not in "".join(words)
    for merchant in stack.merchants:
        assert merchant["secret_key"] in words
        assert merchant["publishable_key"] in words


def test_restart_replaces_a_service_and_waits_for_the_new_one(stack: Servers) -> None:
    before = {row["name"]: row for row in stack.status()["services"]}["batch-processor"]

    finished = payments("restart", "batch-processor", home=stack.home.root, timeout=120)

    assert finished.returncode == 0, finished.stderr
    after = {row["name"]: row for row in stack.status()["services"]}["batch-processor"]
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1
    assert after["state"] == "running"


def test_restart_of_what_does_not_run_is_refused(stack: Servers) -> None:
    finished = payments("restart", "nobody", home=stack.home.root)

    assert finished.returncode == 1
    assert "nobody is not running" in finished.stderr


def test_logs_of_a_service_are_printed(stack: Servers) -> None:
    finished = payments("logs", "payment-worker", home=stack.home.root)

    assert finished.returncode == 0
    ours = [line for line in finished.stdout.splitlines() if not line.startswith("%")]  # librdkafka's own begin so
    assert {json.loads(line)["service"] for line in ours} == {"payment-worker"}
