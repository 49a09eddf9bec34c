"""`payments chaos payments` where there is nothing to kill."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ops.chaos.payments import run
from ops.chaos.payments.run import run_payments_chaos
from ops.local.errors import StackError
from ops.local.layout import Home
from ops.local.state import StackState


@pytest.mark.timeout(30)
def test_without_a_platform_it_ends_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"There is no .* in {tmp_path}") as refused:
        run_payments_chaos(Home(tmp_path), seed=1, most=None, logs=tmp_path, say=print)
    assert "payments up" in str(refused.value)


@pytest.mark.timeout(30)
@pytest.mark.parametrize(("said", "violations"), [("", 0), ("60 payments, each through every step", 1)])
def test_a_demo_that_fails_counts_once_it_has_found_the_platform_ready(
    said: str, violations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = StackState(supervisor_pid=1, units=[])
    monkeypatch.setattr(StackState, "is_ready", True)
    monkeypatch.setattr(run, "read_state", lambda _home: ready)
    script = f"import sys; print({said!r}, flush=True) if {said!r} else None; sys.stdin.read(); sys.exit(1)"
    monkeypatch.setattr(run, "_command", lambda _home, *_arguments: [sys.executable, "-c", script])
    load = run._Load(Home(tmp_path), tmp_path, seed=1)
    load.go_on()
    load.end()
    assert len(load.violations) == violations
    assert load.demos == violations
