"""The call to batch-processor's admin port that starts a settlement run, with this service's client certificate."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec

from api.calls import Call
from api.problems import CODES, Problem, unavailable
from ops.runtime.problem import REQUEST_ID_HEADER
from ops.runtime.settings import Settings
from ops.runtime.tls import client_context

OPERATOR_HEADER = "Operator-Identity"
"""Names the operator to batch-processor, which trusts it from payment-api's certificate and no other."""

TIMEOUT_S = 1.8


class StartedRun(msgspec.Struct, frozen=True):
    """batch-processor's answer."""

    status: str


class _Refusal(msgspec.Struct, frozen=True):
    code: str = "unavailable"
    detail: str = ""


class SettlementRunner:
    """A client of batch-processor. A component: start, stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=client_context(self._settings), limit=10),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            trust_env=False,
        )

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def start_run(self, call: Call, settlement_date: str, *, force: bool) -> StartedRun:
        """Starts the run, or finds it started. Raises Problem: settlement_date_open, unavailable."""
        assert self._session is not None
        assert call.operator is not None
        body: dict[str, Any] = {"settlement_date": settlement_date, "force": force}
        headers = {OPERATOR_HEADER: call.operator, REQUEST_ID_HEADER: call.request_id}
        url = f"{self._settings.batch_processor_url}/settlement_runs"
        try:
            async with self._session.post(url, json=body, headers=headers) as response:
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            raise unavailable("batch-processor does not answer") from None
        if status in (200, 202):
            return msgspec.json.decode(content, type=StartedRun)
        try:
            refusal = msgspec.json.decode(content, type=_Refusal)
        except msgspec.DecodeError:
            refusal = _Refusal()
        if CODES.get(refusal.code) == status and status in (400, 409):
            raise Problem(refusal.code, refusal.detail)
        raise unavailable("batch-processor could not start the run")
