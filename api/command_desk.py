"""Commands as clients cause them: made, made durable (step 1, Accept), and their reply awaited (step 4, Reply)."""

from __future__ import annotations

from typing import Any

import msgspec

from api.calls import Call
from api.payment_views import payment_id_of
from api.ports import ClientCommand, CommandLog
from api.problems import unavailable
from api.replies import CommandReply, ReplyBoard, Waiting
from ops.runtime.secrets import SecretKeys
from ops.runtime.settings import Settings
from streams.domain import commands, ids
from streams.domain.envelope import ReplyTo
from streams.domain.fingerprint import FingerprintKey, idempotency

UNDECIDED = "outcome not yet known; repeat with the same Idempotency-Key"
DURABLE_TIMEOUT_S = 1.9
"""Since the request came in: behind CommandProducer's own time-out, and a client hears within 2 s of a doubt."""


class CommandDesk:
    """What every operation on a payment does with its command."""

    def __init__(self, settings: Settings, log: CommandLog, board: ReplyBoard, fingerprint_keys: SecretKeys) -> None:
        self._settings = settings
        self._log = log
        self._board = board
        self._fingerprint_keys = [FingerprintKey(key_id=key.id, secret=key.key) for key in fingerprint_keys.all]

    async def decide(self, call: Call, command: ClientCommand, waiting: Waiting) -> CommandReply | None:
        """Makes the command durable and waits for its reply; None when none comes in time. Raises Problem."""
        if not self._board.is_listening:
            raise unavailable("no answer could be heard yet")
        timeout_s = self._settings.reply_timeout_s
        backlog = self._board.backlog
        backlog.admit()
        backlog.sent(call.request_id)
        try:
            delivery = self._log.send(command, waiting.give_up)
            reply = await waiting.next(call.seconds_left(min(timeout_s, DURABLE_TIMEOUT_S)))
            if reply is None and not delivery.is_durable:
                raise unavailable("not known to be durable" if call.idempotency_key is None else UNDECIDED)
        except BaseException:
            backlog.withdrawn(call.request_id)
            raise
        return reply or await waiting.next(call.seconds_left(timeout_s))

    def envelope(self, call: Call, now: int) -> dict[str, Any]:
        """The fields with which every command begins. Its id is the request's: each request is a command of its own."""
        return {
            "id": ids.derived(ids.COMMAND, call.request_id),
            "occurred_at": now,
            "actor": call.actor,
            "request_id": call.request_id,
            "traceparent": str(call.traceparent),
            "reply_to": ReplyTo(partition=self._settings.instance, correlation_id=call.request_id),
        }

    def keyed(self, call: Call, operation: str) -> dict[str, Any]:
        key = call.idempotency_key
        assert key is not None
        return {
            "payment_id": payment_id_of(call),
            "merchant_id": call.principal.merchant_id,
            "idempotency_key": key,
            "idempotency": self.idempotency(call, key, operation),
        }

    def idempotency(self, call: Call, key: str, operation: str) -> commands.Idempotency:
        """The key and what the request was. The client secret is no part of that: a backend may repeat a browser."""
        fields = msgspec.to_builtins(call.body)
        fields.pop("client_secret", None)
        plain = {"operation": operation, **fields}
        return idempotency(call.principal.merchant_id, key, plain, self._fingerprint_keys)
