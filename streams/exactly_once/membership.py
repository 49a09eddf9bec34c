"""A worker's place in its consumer group, which fences the offsets of its transactions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Membership:
    """This worker's place in its consumer group, frozen when its lanes were assigned."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None
