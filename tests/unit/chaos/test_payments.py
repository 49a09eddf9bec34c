"""`payments chaos payments` where there is nothing to kill."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.chaos.payments.run import run_payments_chaos
from ops.local.errors import StackError
from ops.local.layout import Home


@pytest.mark.timeout(30)
def test_without_a_platform_it_ends_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"There is no .* in {tmp_path}") as refused:
        run_payments_chaos(Home(tmp_path), seed=1, most=None, logs=tmp_path, say=print)
    assert "payments up" in str(refused.value)
