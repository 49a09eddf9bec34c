"""EndTxn late, without an answer, or twice: through a proxy in front of a real broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.chaos.engine import held_requests
from ops.chaos.engine.cluster import Cluster, own_cluster
from ops.chaos.engine.end_txn_proxy import EndTxnProxy, end_txn_proxy
from ops.chaos.engine.harness import Harness
from ops.chaos.engine.load import amounts, append
from ops.chaos.engine.mutants import mutant_named
from ops.chaos.engine.red_controls import run_mutant
from ops.chaos.engine.topology import Topics

SETTLE_S = 60.0
Scenario = Callable[[Harness, EndTxnProxy], None]
SAYS: dict[Scenario, str] = {
    held_requests.request_late: "the outcome of EndTxn is unknown",
    held_requests.answer_late: "the outcome of EndTxn is unknown",
    held_requests.request_twice: "a connection broke while EndTxn was under way",
}


@pytest.fixture(scope="module")
def behind_a_proxy() -> Iterator[Cluster]:
    with own_cluster(proxied=True) as cluster:
        yield cluster


@pytest.mark.parametrize("scenario", SAYS, ids=lambda scenario: scenario.__name__)
def test_an_end_txn_that_the_network_holds_tears_nothing(
    behind_a_proxy: Cluster, tmp_path: Path, scenario: Scenario
) -> None:
    topics = Topics(f"t-{scenario.__name__.replace('_', '-')}", 2)
    with (
        end_txn_proxy(behind_a_proxy) as proxy,
        Harness(behind_a_proxy.through_proxy, topics, tmp_path).prepared() as harness,
    ):
        scenario(harness, proxy)
        assert SAYS[scenario] in harness.workers.log_of(0)
        append(harness.cluster, harness.topics, amounts(200, 3))
        assert harness.finish(SETTLE_S).violations == []


def test_an_epoch_that_is_kept_after_its_connection_broke_turns_red(behind_a_proxy: Cluster, tmp_path: Path) -> None:
    assert run_mutant(behind_a_proxy, tmp_path, mutant_named("keep an epoch in doubt"))
