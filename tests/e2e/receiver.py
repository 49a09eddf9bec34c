"""A merchant's webhook receiver that verifies with the Standard Webhooks library."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from standardwebhooks import Webhook

ARRIVAL_S = 30.0


class Receiver:
    """Listens on loopback; `events` are the verified bodies in the order of their first arrival."""

    def __init__(self) -> None:
        self.secret: str | None = None
        self.events: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self._changed = threading.Condition()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(204 if owner._take(dict(self.headers), body) else 400)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks"

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _take(self, headers: dict[str, str], body: bytes) -> bool:
        with self._changed:
            assert self.secret is not None
            try:
                event = Webhook(self.secret).verify(body, {name.lower(): value for name, value in headers.items()})
            except Exception as error:  # shown by the test
                self.refused.append(str(error))
                return False
            if event["id"] not in [known["id"] for known in self.events]:
                self.events.append(event)
            self._changed.notify_all()
            return True

    def wait_for(self, event_type: str) -> None:
        """Return when an event of this type is here."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: event_type in [e["type"] for e in self.events], ARRIVAL_S)
        assert arrived, f"no {event_type} in {ARRIVAL_S:.0f} s; here: {[e['type'] for e in self.events]}"
