"""When a stack has come to rest, by what its processes spend from look to look."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from ops.bench import rest
from ops.local.errors import StackError


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "LOOK_S", 1e-9)


def spending(*costs: float) -> rest.Processes:
    """One process that spends so much from each look to the next, and then no less."""
    spent = [0.0]
    for cost in (*costs, *(costs[-1:] * rest.LOOKS)):
        spent += [spent[-1] + cost * 1e-9] * 2  # read after one look and before the next
    readings = iter(spent)
    times = SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=next(readings), system=0.0))
    return [("kafka", 0, cast("psutil.Process", times))]


@pytest.mark.parametrize(
    ("costs", "earlier", "found"),
    [
        ((0.9, 0.5, 0.1, 0.1), None, 0.1),
        ((0.3, 0.3, 0.1, 0.1), None, 0.3),  # steady, for all that is known
        ((0.3, 0.3, 0.3, 0.1, 0.1), [0.1], 0.1),  # steady, but it was less before
    ],
)
async def test_it_rests_when_it_spends_no_less_and_no_more_than_before(
    costs: Sequence[float], earlier: Sequence[float] | None, found: float
) -> None:
    assert await rest.rest(spending(*costs), earlier) == [pytest.approx(found)]


async def test_one_that_goes_on_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(StackError, match="does not come to rest"):
        await rest.rest(spending(0.5), [0.1])
