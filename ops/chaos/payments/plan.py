"""Which service is killed where: each failpoint of a payment's steps 1 to 7 once, in an order that the seed decides."""

from __future__ import annotations

import random
from typing import NamedTuple

from streams.exactly_once.failpoints import IN_A_COMMIT

SERVICES = {
    "payment-api": ("before_command", "after_command"),  # steps 1 and 5
    "payment-worker": IN_A_COMMIT,  # step 2
    "records-worker": (*IN_A_COMMIT, "after_record", "after_reply"),  # steps 3 and 4
    "provider-gateway": (*IN_A_COMMIT, "before_provider", "after_provider"),  # step 6
    "webhook-dispatcher": (*IN_A_COMMIT, "after_webhook"),  # step 7
}
PASSES_MAX = 4  # a failpoint kills at one of its next passes


class Kill(NamedTuple):
    """kill -9 of a service when it comes to a place for the nth time from now."""

    service: str
    failpoint: str
    passes: int

    @property
    def armed(self) -> str:
        """What the service reads."""
        return f"{self.failpoint}=kill:{self.passes}"


def plan(seed: int, most: int | None = None) -> list[Kill]:
    """Every failpoint of every service once, or the first `most` of them. The services take turns: one that is killed
    again at once would wait longer and longer for its restart.
    """
    source = random.Random(seed)
    left = {service: source.sample(points, len(points)) for service, points in SERVICES.items()}
    kills = []
    while left:
        for service in source.sample(sorted(left), len(left)):
            kills.append(Kill(service, left[service].pop(), source.randint(1, PASSES_MAX)))
            if not left[service]:
                del left[service]
    return kills[:most]
