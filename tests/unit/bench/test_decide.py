"""The benchmark of decisions measures what it says: payments that end AUTHORIZED."""

from __future__ import annotations

from ops.bench.decide import measure_decide


def test_a_small_run_decides_every_command_both_ways() -> None:
    speed = measure_decide(20)
    assert speed.commands == 60
    assert speed.decide_per_s > 0
    assert speed.lane_per_s > 0
