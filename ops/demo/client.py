"""HTTP as a careful client does it: with time limits, repeating a request under its key until it is answered."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Collection
from typing import Any, NamedTuple

import aiohttp
import msgspec

PATIENCE_S = 120.0  # for one answer: longer than a killed service needs to be back
ATTEMPT_S = 35.0  # the longest wait that the API grants is 30 s
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 1.0
TRY_AGAIN = frozenset({429, 502, 503, 504})


class GaveUp(Exception):  # noqa: N818
    """No acceptable answer in PATIENCE_S, or one that no repetition will change; the message tells both sides."""


class Answer(NamedTuple):
    status: int
    document: Any  # decoded JSON; None without a body
    took_s: float  # of the attempt that was answered


class Client:
    """One connection pool for everything that the demo calls."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_S))
        self.repetitions = 0  # requests that had to be sent again

    async def close(self) -> None:
        await self._session.close()

    async def call(
        self,
        method: str,
        url: str,
        *,
        tls: ssl.SSLContext,
        wanted: Collection[int],
        again: Collection[int] = (),
        key: str | None = None,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """The first answer whose status is in `wanted`. A `body` that can be called makes a new one for each attempt.

        Repeats after connection errors, TRY_AGAIN and the statuses in `again`; any other status raises GaveUp.
        """
        sent = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
        deadline, pause_s = time.monotonic() + PATIENCE_S, PAUSE_FIRST_S
        while True:
            retry_after_s = 0.0
            try:
                answer, retry_after_s = await self._once(method, url, tls, sent, body)
                if answer.status in wanted:
                    return answer
                outcome = f"{answer.status} {_shown(answer.document)}"
                is_final = answer.status not in TRY_AGAIN and answer.status not in again
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                outcome, is_final = f"{type(error).__name__}: {error}", False
            if is_final or time.monotonic() > deadline:
                raise GaveUp(f"{method} {url}: {outcome}; wanted {', '.join(map(str, sorted(wanted)))}")
            self.repetitions += 1
            await asyncio.sleep(max(pause_s, retry_after_s))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _once(
        self, method: str, url: str, tls: ssl.SSLContext, headers: dict[str, str], body: Any
    ) -> tuple[Answer, float]:
        began = time.monotonic()
        made = body() if callable(body) else body
        data = None if made is None else msgspec.json.encode(made)
        if data is not None:
            headers = {**headers, "Content-Type": "application/json"}
        async with self._session.request(method, url, data=data, headers=headers, ssl=tls) as response:
            text = await response.read()
            answer = Answer(response.status, msgspec.json.decode(text) if text else None, time.monotonic() - began)
            after = response.headers.get("Retry-After", "0")
            return answer, float(after) if after.isdecimal() else 0.0


def _shown(document: Any) -> str:
    return str(document)[:300]
