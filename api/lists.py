"""Pages: `limit`, `starting_after`, and the one form that every list has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from api.documents import ListDocument
from api.problems import Problem
from ops.runtime.clock import from_rfc3339

LIMIT_MAX = 100
LIMIT_DEFAULT = 10

D = TypeVar("D")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Which page of a list is wanted."""

    limit: int
    starting_after: str | None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> ListQuery:
        """Raises Problem invalid_request for a malformed limit, and for an empty `starting_after`."""
        text = query.get("limit", str(LIMIT_DEFAULT))
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX):
            raise Problem("invalid_request", f"a number from 1 to {LIMIT_MAX}", param="limit")
        starting_after = query.get("starting_after")
        if starting_after == "":
            raise Problem("invalid_request", "there is no such object in this list", param="starting_after")
        return cls(int(text), starting_after)

    def cut(self, documents: Sequence[D], id_of: Callable[[D], str]) -> ListDocument:
        """The page of a list that is held whole. Raises Problem invalid_request for an unknown starting_after."""
        first = 0
        if self.starting_after is not None:
            places = [place for place, document in enumerate(documents) if id_of(document) == self.starting_after]
            if not places:
                raise Problem("invalid_request", "there is no such object in this list", param="starting_after")
            first = places[0] + 1
        data = list(documents[first : first + self.limit])
        return ListDocument(data=data, has_more=len(documents) > first + self.limit)


def instant_of(query: Mapping[str, str], name: str) -> int | None:
    """A time in a query, in microseconds since the epoch; None when absent. Raises Problem invalid_request."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return from_rfc3339(text)
    except (ValueError, OverflowError):
        raise Problem(
            "invalid_request", "a time as in RFC 3339, for example 2026-11-22T00:00:00Z", param=name
        ) from None
