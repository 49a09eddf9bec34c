"""Two merchants with keys, made through the operators' API, so that a person can create a payment at once."""

from __future__ import annotations

import http.client
import json
from typing import Any

import msgspec

from ops.local.layout import Home, Ports, write_atomically
from ops.local.probes import client_context

NAMES = ("Demo Shop", "Second Shop")
TIMEOUT_S = 10.0


class SeedError(Exception):
    """The operators' API refused; the message holds its answer."""


def seed(home: Home, ports: Ports) -> None:
    """Write `merchants.json` of the home (mode 0600: it holds secret keys). A home that has one is left alone."""
    if home.merchants_file.exists():
        return
    merchants = [_create(home, ports, name) for name in NAMES]
    write_atomically(home.merchants_file, msgspec.json.format(msgspec.json.encode(merchants)))


def seeded_merchants(home: Home) -> list[str]:
    """Their ids; none before they were made."""
    if not home.merchants_file.exists():
        return []
    return [str(merchant["merchant_id"]) for merchant in json.loads(home.merchants_file.read_bytes())]


def _create(home: Home, ports: Ports, name: str) -> dict[str, str]:
    merchant = _post(home, ports, "/merchants", {"name": name})["merchant_id"]
    keys = {
        kind: _post(home, ports, f"/merchants/{merchant}/api_keys", {"kind": kind})["key"]
        for kind in ("secret", "publishable")
    }
    return {"merchant_id": merchant, "name": name, "secret_key": keys["secret"], "publishable_key": keys["publishable"]}


def _post(home: Home, ports: Ports, path: str, body: dict[str, str]) -> dict[str, Any]:
    context = client_context(home, "operator")
    connection = http.client.HTTPSConnection("127.0.0.1", ports.internal(), context=context, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 201:
        raise SeedError(f"POST {path}: {answer.status} {text.decode(errors='replace')[:500]}")
    created: dict[str, Any] = json.loads(text)
    return created
