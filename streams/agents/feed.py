"""Decider `feed`, step 7 (Notify): gives each merchant's events their place in the merchant's feed, without gaps."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams.agents.messages import message_of
from streams.domain.delivery import FeedEvent, MerchantEvent
from streams.exactly_once.agent import DeciderHandler
from streams.exactly_once.effects import Effects, State
from streams.exactly_once.errors import Poison
from streams.exactly_once.records import Output, Record
from tables.feed import FEED, position_key, subject_key

KINDS = {"MerchantEvent": MerchantEvent}


def feed(events: Output) -> DeciderHandler:
    """The handler of merchants.inbox; numbered events go to `events`, keyed by merchant."""

    def handle(batch: Sequence[Record], state: State, effects: Effects) -> None:
        for record in batch:
            event: MerchantEvent | None = record.value
            if event is None:  # of a newer release
                continue
            if record.key != event.merchant_id.encode():
                raise Poison(f"the key is not the merchant's id: {record.key[:40]!r}")
            number(event, events, state, effects)

    return handle


def number(event: MerchantEvent, events: Output, state: State, effects: Effects) -> None:
    """Append the event to its merchant's feed, unless it is in there: `records` tells some twice after a crash.

    A payment's events come in the order of their versions, so its last version tells repeats; others tell by their id.
    """
    subject = event.id if event.payment is None else event.payment.payment_id
    seen = subject_key(event.merchant_id, subject)
    if event.sequence <= (state.get(FEED, seen) or 0):
        return
    position = position_key(event.merchant_id)
    feed_sequence = (state.get(FEED, position) or 0) + 1
    effects.put(FEED, seen, event.sequence)
    effects.put(FEED, position, feed_sequence)
    numbered = FeedEvent(feed_sequence=feed_sequence, **msgspec.structs.asdict(event))
    effects.send(events, message_of(numbered), key=event.merchant_id.encode())
