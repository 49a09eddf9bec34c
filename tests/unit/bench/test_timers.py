"""The benchmark of timers measures what it says: timers that fire, each by itself."""

from __future__ import annotations

from ops.bench.timers import measure_timers


def test_a_small_run_sets_and_fires_every_timer() -> None:
    speed = measure_timers(30)
    assert speed.timers == 30
    assert speed.first_us > 0
    assert speed.last_us == speed.first_us, "they are the same thirty"
