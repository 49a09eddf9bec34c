"""A client of a running platform's HTTP ports, as a merchant, a browser or an operator has it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.local_servers import Servers
from tests.tls_sessions import tls_session

PAYMENT = {
    "amount": 2500,
    "currency": "USD",
    "customer": {"email": "canary.ann@example.com", "name": "Canary Ann"},
    "description": "canary order 17",
    "metadata": {"order": "canary-17"},
}


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """Calls one port, with an API key or as the identity of a certificate."""

    def __init__(self, servers: Servers, url: str, *, key: str = "", identity: str | None = None) -> None:
        self.key = key
        context = ssl.create_default_context(cafile=str(servers.home.ca))
        if identity is not None:
            context.load_cert_chain(servers.tls(identity).cert, servers.tls(identity).key)
        self._opening = tls_session(url, context)

    async def __aenter__(self) -> Client:
        self._session = await self._opening.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._opening.__aexit__(*error)

    async def call(
        self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str
    ) -> Answer:
        """One request; header names in `headers` are written with underscores."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key or self.key:
            sent["Authorization"] = f"Bearer {key or self.key}"
        options: dict[str, Any] = {} if body is None else {"json": body}
        async with self._session.request(method, path, headers=sent, **options) as response:
            return Answer(response.status, response.headers, await response.read())
