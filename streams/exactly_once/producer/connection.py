"""One connection to a broker: requests go out in order, and their answers come back in that order.

Blocking, for the commit thread: it has nothing else to do meanwhile. Messages are kafka-python's, which it makes from
Kafka's own descriptions of its protocol.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from collections import deque
from typing import Any

CLIENT_ID = "payments-engine"
ANSWER_MAX_BYTES = 100_000_000  # as brokers take of a request
_READ_BYTES = 65_536
_INT32 = struct.Struct(">i")


class ConnectionLostError(OSError):
    """The connection is of no use any more: what was asked on it may or may not have been done."""


class BrokerConnection:
    """Every call takes a deadline on the monotonic clock, in seconds; every failure is an OSError."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, deadline_s: float) -> None:
        self._correlation_id = 0
        self._awaited: deque[tuple[int, Any]] = deque()  # correlation id, class of the answer
        self._received = bytearray()
        self._socket = socket.create_connection((host, port), _left_s(deadline_s))
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        except BaseException:
            self._socket.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the broker has kept it open, as far as this side knows. Only while nothing is awaited."""
        if self._awaited:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(0):
            return True
        try:  # it has ended, or TLS has something to say to itself
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def ask(self, request: Any, deadline_s: float) -> Any:
        """Send a request and wait for its answer."""
        self.send(request, deadline_s)
        return self.receive(deadline_s)

    def send(self, request: Any, deadline_s: float) -> None:
        """Send a request; `receive` gives its answer in its turn."""
        self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
        request.with_header(correlation_id=self._correlation_id, client_id=CLIENT_ID)
        self._awaited.append((self._correlation_id, request.header.get_response_class()))
        self._socket.settimeout(_left_s(deadline_s))
        self._socket.sendall(request.encode(header=True, framed=True))

    def receive(self, deadline_s: float) -> Any:
        """The answer to the oldest request that has none."""
        size = _INT32.unpack(self._read(_INT32.size, deadline_s))[0]
        if not 0 < size <= ANSWER_MAX_BYTES:
            raise ConnectionLostError(f"an answer of {size} bytes")
        frame = self._read(size, deadline_s)
        correlation_id, answer = self._awaited.popleft()
        if _INT32.unpack_from(frame)[0] != correlation_id:
            raise ConnectionLostError("an answer to another request")
        return answer.decode(frame, header=True)

    def close(self) -> None:
        """Drop it."""
        self._socket.close()

    def _read(self, size: int, deadline_s: float) -> bytes:
        while len(self._received) < size:
            self._socket.settimeout(_left_s(deadline_s))
            read = self._socket.recv(_READ_BYTES)
            if not read:
                raise ConnectionLostError("the broker closed the connection")
            self._received += read
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _left_s(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError("no answer in time")
    return left_s
