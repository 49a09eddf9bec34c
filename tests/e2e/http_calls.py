"""HTTP as merchants, browsers, operators and auditors speak it; nothing here knows the platform's own code."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
import uuid
from typing import Any, NamedTuple

from tests.local_servers import Servers

CARD = {"number": "4242424242424242", "exp_month": 12, "exp_year": time.gmtime().tm_year + 1, "cvc": "123"}
ORDER = {"amount": 2500, "currency": "USD", "customer": {"email": "a@example.com", "name": "Ann"}}
RUN_S, ANSWER_S = 60.0, 40.0


class Answer(NamedTuple):
    status: int
    headers: Any
    text: str
    took_s: float

    @property
    def body(self) -> Any:
        return json.loads(self.text)


class Shop:
    """A merchant's keys, and one method for each thing that people do with them."""

    def __init__(self, stack: Servers) -> None:
        self.urls = stack.urls
        merchant = stack.merchants[0]
        self.merchant_id = merchant["merchant_id"]
        self.secret_key, self.publishable_key = merchant["secret_key"], merchant["publishable_key"]
        self._stack = stack

    def call(
        self,
        method: str,
        url: str,
        body: object = None,
        *,
        key: str | None = None,
        certificate: str | None = None,
        **headers: str,
    ) -> Answer:
        """One request, no repetition. `body` may be bytes; header names are written with underscores."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(url, data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        began = time.monotonic()
        try:
            with urllib.request.urlopen(request, context=self._tls(certificate), timeout=ANSWER_S) as answer:
                return Answer(answer.status, answer.headers, answer.read().decode(), time.monotonic() - began)
        except urllib.error.HTTPError as refusal:
            return Answer(refusal.code, refusal.headers, refusal.read().decode(), time.monotonic() - began)

    def create(self, key: str | None = None, body: object = None) -> Answer:
        """POST /payments"""
        key = key or str(uuid.uuid4())
        return self.call(
            "POST", f"{self.urls['api']}/payments", body or ORDER, key=self.secret_key, Idempotency_Key=key
        )

    def created(self, key: str | None = None, body: object = None) -> Answer:
        """POST /payments, repeated under its key while a busy machine does not answer in time: 201."""
        key = key or str(uuid.uuid4())
        deadline = time.monotonic() + ANSWER_S
        while (answer := self.create(key, body)).status in (202, 429, 503):
            assert time.monotonic() < deadline, answer
            time.sleep(0.2)
        assert answer.status == 201, answer
        return answer

    def get(self, path: str) -> Answer:
        """GET on the public API, with the secret key."""
        return self.call("GET", self.urls["api"] + path, key=self.secret_key)

    def tokenise(self) -> str:
        """The browser trades a card for a token, at the vault."""
        answer = self.call("POST", f"{self.urls['vault']}/v1/tokens", {"card": CARD}, key=self.publishable_key)
        assert answer.status == 201, answer
        token: str = answer.body["token"]
        return token

    def confirm(self, payment: dict[str, Any], token: str, key: str = "confirm", **headers: str) -> Answer:
        """The browser confirms, with the publishable key and the client_secret."""
        return self.call(
            "POST",
            f"{self.urls['api']}/payments/{payment['payment_id']}/confirm",
            {"payment_method_token": token, "client_secret": payment["client_secret"]},
            key=self.publishable_key,
            Idempotency_Key=key,
            **headers,
        )

    def close_day(self, day: str) -> dict[str, Any]:
        """An operator closes a settlement day, as midnight would; the completed run."""
        url, path = self.urls["internal"], {"settlement_date": day, "force": True}
        answer = self.call("POST", f"{url}/settlement_batches", path, certificate="operator")
        assert answer.status == 202, answer
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            run = self.call("GET", f"{url}/settlement_runs/{day}", certificate="operator")
            if run.status == 200 and run.body["status"] == "COMPLETED":
                completed: dict[str, Any] = run.body
                return completed
            time.sleep(0.2)
        raise AssertionError(f"the run of {day} did not complete: {run}")

    def ledger(self, payment_id: str) -> list[dict[str, Any]]:
        """What the provider really did for a payment."""
        url = f"{self.urls['provider']}/v1/ledger?payment_id={payment_id}"
        answer = self.call("GET", url, certificate="auditor")
        assert answer.status == 200, answer
        movements: list[dict[str, Any]] = answer.body["data"]
        return movements

    def _tls(self, certificate: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self._stack.home.ca))
        if certificate is not None:
            files = self._stack.tls(certificate)
            context.load_cert_chain(files.cert, files.key)
        return context
