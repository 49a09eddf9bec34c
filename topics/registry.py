"""A small client of the schema registry's Confluent-compatible API, over TLS; safe to use from several threads.

Services only read: the guard in front of the registry lets nobody but the operator write.
"""

from __future__ import annotations

import json
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3

from topics.schemas import Subject

COMPATIBILITY = "FULL_TRANSITIVE"
CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
CONNECTIONS = 4
TIMEOUT = urllib3.Timeout(connect=1.0, read=3.0)
RETRIES = urllib3.Retry(
    total=2,
    backoff_factor=0.05,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=None,  # every call may be repeated: lookups, and registrations that are idempotent by content
    raise_on_status=False,
    redirect=0,
)


class RegistryError(Exception):
    """The registry refused; the message names the call and the answer."""


class RegistryUnavailable(Exception):  # noqa: N818 - the opposite of a refusal: try again
    """The registry did not answer, or not now: nothing is known, trying again later is right."""


class Verdict(NamedTuple):
    """Whether a subject's schema may follow all versions registered before it, and if not, why."""

    subject: str
    is_compatible: bool
    messages: tuple[str, ...]


class Registry:
    """The registry behind one URL."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._url = url.rstrip("/")
        self._pool = urllib3.PoolManager(
            maxsize=CONNECTIONS, block=True, ssl_context=context, timeout=TIMEOUT, retries=RETRIES
        )

    def close(self) -> None:
        self._pool.clear()

    def schema(self, schema_id: int) -> str | None:
        """The text of the schema with this id; None when the registry has none. Raises RegistryUnavailable."""
        answer = self._call("GET", f"/schemas/ids/{schema_id}")
        return None if answer is None else str(answer["schema"])

    def schema_id(self, subject: Subject) -> int | None:
        """The id under which exactly this schema is registered for the subject; None when it is not."""
        answer = self._call("POST", f"/subjects/{_quoted(subject)}?normalize=true", {"schema": subject.text})
        return None if answer is None else int(answer["id"])

    def register(self, subject: Subject) -> int:
        """Registers the schema (a no-op when it is there) and returns its id. Raises RegistryError on a breach."""
        answer = self._call("POST", f"/subjects/{_quoted(subject)}/versions?normalize=true", {"schema": subject.text})
        if answer is None:
            raise RegistryError(f"the registry would not register {subject.name}")
        return int(answer["id"])

    def compatibility(self) -> str | None:
        """The level that holds for every subject; None when none is set."""
        answer = self._call("GET", "/config")
        return None if answer is None else str(answer.get("compatibilityLevel"))

    def require_compatibility(self) -> None:
        """From now on every version of every subject must be FULL_TRANSITIVE. Raises RegistryError."""
        self._call("PUT", "/config", {"compatibility": COMPATIBILITY})

    def verdict(self, subject: Subject) -> Verdict:
        """Compares the schema with every registered version; a subject that is not there yet allows anything."""
        path = f"/compatibility/subjects/{_quoted(subject)}/versions?verbose=true&normalize=true"
        answer = self._call("POST", path, {"schema": subject.text})
        if answer is None:
            return Verdict(subject.name, True, ())
        messages = tuple(str(message) for message in answer.get("messages") or ())
        return Verdict(subject.name, bool(answer["is_compatible"]), messages)

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """The answer's JSON; None for 404."""
        headers = {"Accept": f"{CONTENT_TYPE}, application/json", "Content-Type": CONTENT_TYPE}
        payload = None if body is None else json.dumps(body).encode()
        try:
            response = self._pool.request(method, self._url + path, body=payload, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            reason = error.reason if isinstance(error, urllib3.exceptions.MaxRetryError) else error
            raise RegistryUnavailable(f"the schema registry at {self._url} does not answer: {reason}") from error
        if response.status == 404:
            return None
        if response.status in RETRIES.status_forcelist:
            raise RegistryUnavailable(f"the schema registry at {self._url} answers {response.status}")
        if response.status >= 400:
            detail = response.data.decode(errors="replace")[:500]
            raise RegistryError(f"{method} {path}: {response.status} {detail}")
        answer = json.loads(response.data)
        assert isinstance(answer, dict)
        return answer


def find_ids(registry: Registry, wanted: tuple[Subject, ...]) -> dict[str, int]:
    """Ids of the subjects whose present schema is registered, in one parallel pass. Raises RegistryUnavailable."""
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="schema-registry") as threads:
        ids = threads.map(registry.schema_id, wanted)
        return {subject.name: found for subject, found in zip(wanted, ids, strict=True) if found is not None}


def register_schemas(registry: Registry, wanted: tuple[Subject, ...]) -> dict[str, int]:
    """Registers every schema that is not there yet; the registry demands FULL_TRANSITIVE from then on. Returns all ids.

    Idempotent. Raises RegistryError when a schema breaks compatibility, RegistryUnavailable.
    """

    def one(subject: Subject) -> int:
        known = registry.schema_id(subject)
        return registry.register(subject) if known is None else known

    if registry.compatibility() != COMPATIBILITY:
        registry.require_compatibility()
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="schema-registry") as threads:
        return dict(zip((s.name for s in wanted), threads.map(one, wanted), strict=True))


def check_schemas(registry: Registry, wanted: tuple[Subject, ...]) -> tuple[Verdict, ...]:
    """One verdict per subject, in their order. Raises RegistryUnavailable."""
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="schema-registry") as threads:
        return tuple(threads.map(registry.verdict, wanted))


def _quoted(subject: Subject) -> str:
    return quote(subject.name, safe="")
