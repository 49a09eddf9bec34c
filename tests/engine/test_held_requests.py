"""EndTxn late, unanswered or twice, and connections that break: through a proxy in front of a real broker.

`payments chaos engine --mutants` plays the same to engines that do not mind; the simulation does here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.chaos.engine import held_requests
from ops.chaos.engine.cluster import Cluster, own_cluster
from ops.chaos.engine.end_txn_proxy import EndTxnProxy, end_txn_proxy
from ops.chaos.engine.harness import Harness
from ops.chaos.engine.load import amounts, append
from ops.chaos.engine.topology import Topics

SETTLE_S = 60.0
Scenario = Callable[[Harness, EndTxnProxy], None]
SAYS: dict[Scenario, str] = {
    held_requests.request_late: "the outcome of EndTxn is unknown",
    held_requests.answer_late: "the outcome of EndTxn is unknown",
    held_requests.request_twice: "the outcome of EndTxn is unknown",
    held_requests.connections_break: "",  # robinhood/faust 736: it went on, but never committed again
}


@pytest.fixture(scope="module")
def behind_a_proxy() -> Iterator[Cluster]:
    with own_cluster(proxied=True) as cluster:
        yield cluster


@pytest.mark.parametrize("scenario", SAYS, ids=lambda scenario: scenario.__name__)
def test_what_the_network_does_tears_nothing(behind_a_proxy: Cluster, tmp_path: Path, scenario: Scenario) -> None:
    topics = Topics(f"t-{scenario.__name__.replace('_', '-')}", 2)
    with (
        end_txn_proxy(behind_a_proxy) as proxy,
        Harness(behind_a_proxy.through_proxy, topics, tmp_path).prepared() as harness,
    ):
        scenario(harness, proxy)
        assert SAYS[scenario] in harness.workers.log_of(0)
        append(harness.cluster, harness.topics, amounts(200, 3))
        assert harness.finish(SETTLE_S).violations == []
